"""What pages name exists: files, folders, and links to them."""

import re
from pathlib import Path

import pytest

from pages import PAGES, REPOSITORY

TREES = ("benchmarks", "docs", "examples", "exporter", "runtime", "tests", "tools")
WRITTEN = [*PAGES, REPOSITORY / "CHANGELOG.md", REPOSITORY / "SECURITY.md"]


def of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", WRITTEN, ids=of)
def test_files_in_code_spans_exist(page: Path) -> None:
    named = set(re.findall(rf"`((?:{'|'.join(TREES)})/[\w./-]+)`", page.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("page", WRITTEN, ids=of)
def test_linked_files_exist(page: Path) -> None:
    links = set(re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8")))
    assert [link for link in sorted(links) if not (page.parent / link).exists()] == []


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 110
