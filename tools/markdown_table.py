"""Read and write Markdown tables whose rows are named by their first cell."""

import re
from collections.abc import Iterable, Mapping, Sequence

Cells = Mapping[str, str]
"""Cells of a row, by the name of the column."""


def read(text: str) -> dict[str, Cells]:
    """Return the rows of all tables in `text`, by name."""
    rows: dict[str, Cells] = {}
    columns: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        name, *cells = (cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line[1:-1]))
        if not columns:
            columns = cells
        elif name.strip("-"):
            rows[name] = dict(zip(columns, cells, strict=True))
    return rows


def write(columns: Sequence[str], rows: Iterable[tuple[str, Cells]]) -> str:
    """Return a Markdown table of named rows; missing cells are empty."""
    lines = ["| " + " | ".join(["", *columns]) + " |", "|" + "---|" * (len(columns) + 1)]
    for name, cells in rows:
        row = [name, *(" ".join(cells.get(column, "").split()).replace("|", r"\|") for column in columns)]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"
