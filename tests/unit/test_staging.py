"""A bundle appears all at once or not at all, and never damages what was there."""

import errno
from pathlib import Path

import pytest

from speech_export.errors import ExportError
from speech_export.staging import staged
from speech_runtime.bundle import MANIFEST


def write(directory: Path, content: str) -> None:
    (directory / MANIFEST).write_text(content)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    target = tmp_path / "bundle"
    target.mkdir()
    write(target, "old")
    return target


def test_it_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "bundle"
    with staged(target, overwrite=False) as directory:
        write(directory, "new")
        assert not target.exists()
    assert (target / MANIFEST).read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]


def test_what_is_there_is_not_replaced_unasked(old: Path) -> None:
    with pytest.raises(ExportError, match="exists already; give --overwrite"), staged(old, overwrite=False):
        pass
    assert (old / MANIFEST).read_text() == "old"


def test_overwrite_replaces_a_bundle(old: Path) -> None:
    with staged(old, overwrite=True) as directory:
        write(directory, "new")
        assert (old / MANIFEST).read_text() == "old"
    assert (old / MANIFEST).read_text() == "new"
    assert [path.name for path in old.parent.iterdir()] == ["bundle"]


def test_overwrite_replaces_nothing_but_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match="is not a bundle, and is not replaced"), staged(tmp_path, overwrite=True):
        pass
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interruption_leaves_what_was_there(old: Path, interruption: type[BaseException]) -> None:
    with pytest.raises(interruption), staged(old, overwrite=True) as directory:
        write(directory, "half")
        raise interruption
    assert (old / MANIFEST).read_text() == "old"
    assert [path.name for path in old.parent.iterdir()] == ["bundle"]


def test_a_full_disk_is_named_and_left_clean(tmp_path: Path) -> None:
    with (
        pytest.raises(ExportError, match=r"is full \([\d,]+ MiB free now\); nothing was left there"),
        staged(tmp_path / "bundle", overwrite=False) as directory,
    ):
        write(directory, "half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot write to .*file"), staged(tmp_path / "file" / "b", overwrite=False):
        pass
    with pytest.raises(ExportError, match="is a file"), staged(tmp_path / "file", overwrite=True):
        pass
