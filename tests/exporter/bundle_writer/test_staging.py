"""Test that a bundle appears all at once or not at all, and that a failed export leaves the old one as it was."""

import errno
import os
import stat
from pathlib import Path

import pytest

from speech_export.bundle_writer import staging
from speech_export.bundle_writer.staging import check_target, staged
from speech_export.errors import ExportError
from speech_runtime.atomic import system_calls, writing
from speech_runtime.bundle.manifest import MANIFEST


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


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_but_a_bundle_is_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(ExportError, match="is not a bundle, and is not replaced"),
        staged(tmp_path, overwrite=overwrite),
    ):
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


@pytest.mark.parametrize("refused", ["parent", "target"])
def test_a_place_that_may_not_be_looked_at_is_named(
    refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a" / "b" / "o"

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir" if refused == "parent" else "is_symlink", refuse)
    where = target if refused == "target" else target.parent
    with (
        pytest.raises(ExportError, match=f"cannot write to {where}: Permission denied; choose"),
        staged(target, overwrite=False),
    ):
        raise AssertionError


def test_a_name_that_is_too_long_is_named(tmp_path: Path) -> None:
    for target in (tmp_path / ("x" * 300), tmp_path / ("x" * 300) / "o"):
        with pytest.raises(ExportError, match="x{300}.*: File name too long; choose"), staged(target, overwrite=False):
            raise AssertionError


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot write to .*file"), staged(tmp_path / "file" / "b", overwrite=False):
        pass
    with pytest.raises(ExportError, match="is a file"), staged(tmp_path / "file", overwrite=True):
        pass


def test_a_place_is_tried_before_the_export(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = old.parent
    for target in (parent / "new", parent / "a" / "b", old):
        check_target(target, overwrite=True)
    assert [path.name for path in parent.iterdir()] == ["bundle"]

    (parent / "file").write_text("")
    for target in (parent / "file" / "o", parent / "file" / "a" / "o"):
        with pytest.raises(ExportError, match=f"^cannot write to {parent}/file: Not a directory; choose another"):
            check_target(target, overwrite=False)
    with pytest.raises(ExportError, match="^cannot write to .*/x{300}: File name too long; choose another"):
        check_target(parent / ("x" * 300), overwrite=False)

    def refuse(path: str, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "mkdir", refuse)
    for target in (parent / "a" / "b", old):
        with pytest.raises(ExportError, match=f"^cannot write to {parent}: Permission denied; choose another"):
            check_target(target, overwrite=True)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no file system that nobody can write")
@pytest.mark.parametrize("target", ["/proc/bundle", "/proc/a/bundle"])
def test_not_even_root_writes_everywhere(target: str) -> None:
    with pytest.raises(ExportError, match="^cannot write to /proc: No such file or directory; choose another"):
        check_target(Path(target), overwrite=False)


@pytest.fixture(params=["exchange", "plain renames"])
def rename_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the renames of this system, and as where it has none."""
    if request.param == "plain renames":
        monkeypatch.setattr(system_calls, "_rename_call", lambda: None)
    return str(request.param)


@pytest.mark.parametrize("content", ["bundle.json", "thesis.tex", None])
@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_what_appears_during_the_export_is_not_replaced(
    kind: str, content: str | None, tmp_path: Path, rename_kind: str
) -> None:
    target, elsewhere = tmp_path / "bundle", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if content is None and rename_kind == "plain renames":
        content = "x"  # an empty directory is replaced there by a plain rename, and nothing is lost
    with (
        pytest.raises(ExportError, match="exists already|is a file|is not a bundle|leads to"),
        staged(target, overwrite=False) as directory,
    ):
        write(directory, "new")
        if kind == "directory":
            target.mkdir()
            if content is not None:
                (target / content).write_text("of somebody else")
        elif kind == "file":
            target.write_text("of somebody else")
        else:
            target.symlink_to(elsewhere)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"bundle", "elsewhere"}
    if kind == "directory" and content is not None:
        assert (target / content).read_text() == "of somebody else"


def test_of_two_exports_to_one_place_the_second_is_refused(tmp_path: Path, rename_kind: str) -> None:
    target = tmp_path / "bundle"
    with (
        pytest.raises(ExportError, match="exists already"),
        staged(target, overwrite=False) as second,
        staged(target, overwrite=False) as first,
    ):
        write(first, "first")
        write(second, "second")
    assert (target / MANIFEST).read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    "name", ["notes.txt", "audio/clip.wav", "engines/mine.txt", ".git/config", "encoder.onnx.orig"]
)
@pytest.mark.parametrize("when", ["before", "during"])
def test_overwrite_spares_files_of_the_user(name: str, when: str, old: Path, rename_kind: str) -> None:
    def add() -> None:
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text("years of work")

    if when == "before":
        add()
    with (
        pytest.raises(ExportError, match=f"has files that do not belong to the bundle: {name}; it is not replaced"),
        staged(old, overwrite=True) as directory,
    ):
        write(directory, "new")
        add()
    assert (old / name).read_text() == "years of work"
    assert (old / MANIFEST).read_text() == "old"
    assert [path.name for path in old.parent.iterdir()] == ["bundle"]


def test_a_change_in_the_last_moment_is_put_back(old: Path, rename_kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's file appears between the last look and the rename."""
    looks = iter(range(9))
    genuine = staging._foreign_files

    def late(bundle: Path) -> list[str]:
        found = genuine(bundle)
        if next(looks) == 1:
            (bundle / "notes.txt").write_text("years of work")
        return found

    monkeypatch.setattr(staging, "_foreign_files", late)
    with pytest.raises(ExportError, match="notes.txt"), staged(old, overwrite=True) as directory:
        write(directory, "new")
    assert {path.name: path.read_text() for path in old.iterdir()} == {MANIFEST: "old", "notes.txt": "years of work"}


def test_what_cannot_be_put_back_is_kept_and_named(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an exchange, somebody takes the place in the moment in which nothing is there."""
    monkeypatch.setattr(system_calls, "_rename_call", lambda: None)
    looks = iter(range(9))
    genuine = staging._foreign_files

    def late(bundle: Path) -> list[str]:
        look, found = next(looks), genuine(bundle)
        if look == 1:
            (bundle / "notes.txt").write_text("years of work")
        if look == 2:
            old.mkdir()
            (old / "other.txt").write_text("of another")
        return found

    monkeypatch.setattr(staging, "_foreign_files", late)
    with pytest.raises(ExportError, match=r"bundle\..*\.kept"), staged(old, overwrite=True) as directory:
        write(directory, "new")
    assert [path.name for path in old.iterdir()] == ["other.txt"]
    (kept,) = old.parent.glob("bundle.*.kept")
    assert (kept / "notes.txt").read_text() == "years of work"


def test_engines_and_files_of_the_manifest_are_of_the_bundle(old: Path, rename_kind: str) -> None:
    write(old, '{"files": {"vocab.json": {}}}')
    for name in ("vocab.json", "engines/tensorrt_rtx-0123abcd/encoder.engine", ".bundle.json.0123abcd.partial"):
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text("")
    with staged(old, overwrite=True) as directory:
        write(directory, "new")
    assert [path.name for path in old.iterdir()] == [MANIFEST]


def test_a_link_is_followed_and_stays(old: Path, rename_kind: str) -> None:
    link = old.with_name("link")
    link.symlink_to(old.name)
    with pytest.raises(ExportError, match="exists already"), staged(link, overwrite=False):
        pass
    with staged(link, overwrite=True) as directory:
        write(directory, "new")
    assert link.is_symlink()
    assert (old / MANIFEST).read_text() == "new"
    assert {path.name for path in old.parent.iterdir()} == {"bundle", "link"}
    link.unlink()
    link.symlink_to("nowhere")
    with pytest.raises(ExportError, match="a link that leads nowhere"), staged(link, overwrite=True):
        pass


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_the_umask_is_respected(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with staged(tmp_path / "bundle", overwrite=False) as directory:
            write(directory, "new")
            assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "bundle").stat().st_mode) == 0o777 & ~mask
    assert stat.S_IMODE((tmp_path / "bundle" / MANIFEST).stat().st_mode) == 0o666 & ~mask


def test_all_is_synced_before_the_rename_and_the_parent_after(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, exchanged = os.fsync, writing.exchange

    def synced(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def exchange(one: Path, other: Path) -> bool:
        done.append("rename")
        return exchanged(one, other)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(writing, "exchange", exchange)
    with staged(old, overwrite=True) as directory:
        write(directory, "new")
        (directory / "engines").mkdir()
        (directory / "engines" / "file").write_text("")
    assert set(done[:-2]) == {MANIFEST, "file", "engines", "new"}
    assert done[-3:] == ["new", "rename", old.parent.name]
