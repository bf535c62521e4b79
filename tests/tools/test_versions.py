"""Test the table of versions: rows are replaced by name, and stay in the order of the sets."""

from pathlib import Path

import pytest

import versions
from conftest import REPOSITORY


def test_rows_are_replaced_and_ordered(tmp_path: Path) -> None:
    page = tmp_path / "install.md"
    page.write_text(f"before\n\n{versions.BEGIN}{versions.END}after\n")
    for name, passed in (("newest", "3"), ("lowest", "1"), ("newest", "4")):
        versions.write({name: {"torch": "2.10.0", "tests passed": passed}}, page)
    lines = page.read_text().splitlines()
    assert [line for line in lines if line.startswith(("| lowest", "| newest"))] == [
        "| lowest |  |  | 2.10.0 |  |  |  | 1 |  |",
        "| newest |  |  | 2.10.0 |  |  |  | 4 |  |",
    ]
    assert (lines[0], lines[-1]) == ("before", "after")


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "install.md").write_text("nothing here\n")
    with pytest.raises(SystemExit, match="has lost a mark of its table"):
        versions.write({}, tmp_path / "install.md")


def test_the_core_of_the_tests_is_there() -> None:
    assert versions.PAGE.read_text().count(versions.BEGIN) == 1
    assert [name for name in versions.CORE if not (REPOSITORY / name).exists()] == []
