"""Tables of Markdown whose rows are named by their first cell: read, and written."""

import re
from collections.abc import Iterable, Mapping, Sequence

Cells = Mapping[str, str]
"""What a row says, by the name of the column."""


def read(text: str) -> dict[str, Cells]:
    """The rows of all tables in `text`, by name."""
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
    """A table of named rows; a cell that a row does not have is empty."""
    lines = ["| " + " | ".join(["", *columns]) + " |", "|" + "---|" * (len(columns) + 1)]
    for name, cells in rows:
        row = [name, *(" ".join(cells.get(column, "").split()).replace("|", r"\|") for column in columns)]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"
