"""Test the tables of docs/support.md and docs/half_precision.md: rows measured again replace the old ones."""

from pathlib import Path

import pytest

import half_table
import markdown_table
import support_table
from matrix import DECODER_ROWS, ENCODER_ROWS

FIRST, LAST = ENCODER_ROWS[0].name, DECODER_ROWS[-1].name


def test_what_is_written_is_read_again() -> None:
    rows = {"a, b": {"x": "1", "y": ""}, "c": {"x": "yes", "y": "2 MiB"}}
    table = markdown_table.write(["x", "y"], rows.items())
    assert table == "|  | x | y |\n|---|---|---|\n| a, b | 1 |  |\n| c | yes | 2 MiB |\n"
    assert markdown_table.read(f"words\n\n{table}\nwords\n") == rows


def test_a_cell_may_have_a_bar_or_an_end_of_line_in_it() -> None:
    rows = {"a": {"why": "x | y \\ z"}}
    assert markdown_table.read(markdown_table.write(["why"], rows.items())) == rows
    assert markdown_table.read(markdown_table.write(["why"], [("a", {"why": "one\ntwo"})])) == {"a": {"why": "one two"}}


def test_rows_that_are_not_measured_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "half_precision.md"
    page.write_text(f"Text.\n\n{half_table.MARK}\n", encoding="utf-8")
    monkeypatch.setattr(half_table, "PAGE", page)
    half_table.write({LAST: {"mean": "1"}})
    half_table.write({FIRST: {"mean": "2"}})
    half_table.write({LAST: {"mean": "3"}})
    assert page.read_text(encoding="utf-8").startswith(f"Text.\n\n{half_table.MARK}\n")
    assert [(name, cells["mean"]) for name, cells in half_table.read().items()] == [(FIRST, "2"), (LAST, "3")]


def test_engines_of_the_support_table_are_those_of_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "support.md"
    page.write_text(support_table.TABLE.read_text(encoding="utf-8"), encoding="utf-8")
    before = markdown_table.read(page.read_text(encoding="utf-8"))
    monkeypatch.setattr(support_table, "TABLE", page)
    engines = {half_table.FP32_ENGINES: "3.0 MiB", half_table.FP16_ENGINES: "2.0 MiB"}
    support_table.write({FIRST: {"export": "no"}}, {FIRST: engines, LAST: engines})
    rows = markdown_table.read(page.read_text(encoding="utf-8"))
    assert {name: cells for name, cells in rows[FIRST].items() if cells} == {"export": "no", **engines}
    assert rows[LAST] == {**before[LAST], **engines}
