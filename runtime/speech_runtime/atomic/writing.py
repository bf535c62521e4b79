"""Writing of a file or a directory that appears complete or not at all, and replaces only what it is allowed to.

A directory is written beside its place, and put there in one step. Beside the target OUT is a container,
`.OUT.<8 letters>.partial`, which only its owner may read, with

- `lock`, a file that is locked as long as the writing process lives;
- `new`, the directory that will be OUT;
- `old`, the directory that was OUT, for the moment between two renames where the system cannot exchange them.

A container whose lock is free belongs to a process that was killed. The next run for OUT removes it, and first puts
`old` back where OUT is missing.
"""

import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..interrupts import held
from .system_calls import exchange, lock, locked_directory, rename_new, sync_directory, sync_tree

PARTIAL = ".partial"
"""Suffix of files and directories that are not complete yet."""
_NAME = 50
"""Characters of a file's name that the name of its partial file keeps: at most 4 bytes each, of the 255 allowed."""
_LOCK, _NEW, _OLD = "lock", "new", "old"


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write `text` to `path` as UTF-8; see `write_bytes`.

    Args:
        path: File to write.
        text: Content.
        errors: How to encode characters that UTF-8 does not have, as in `open`.
    """
    write_bytes(path, text.encode("utf-8", errors))


def write_output(path: Path, text: str) -> None:
    """Write `text` to a path that a user names: a device or a pipe, such as /dev/stdout, stays what it is.

    Raises:
        OSError: The file cannot be written; a regular one is unchanged.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_text(text, encoding="utf-8")
    else:
        write_text(path, text)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path`. A reader finds the old content or the new one, after a power cut too.

    Raises:
        OSError: The file cannot be written. The old one is unchanged, and nothing is left beside it.
    """
    partial = path.with_name(f".{path.name[:_NAME]}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def staging_directory(target: Path) -> Iterator[Path]:
    """Make an empty directory beside `target`, for `publish`; it is removed when the block ends.

    Directories that killed processes left for the same `target` are removed first.

    Raises:
        OSError: The parent of `target` does not exist, or cannot be written.
    """
    collect(target)
    with held():  # Ctrl-C before the block that removes it would leave it behind
        container, descriptor = _make_container(target)
    try:
        yield container / _NEW
    finally:
        with held():
            _remove(container)
            os.close(descriptor)


def publish(new: Path, target: Path, replaceable: Callable[[Path], None] | None = None) -> None:
    """Put the directory `new` of `staging_directory` at `target`; its content is on disk before it appears there.

    Args:
        new: Directory to publish.
        target: Its place.
        replaceable: Raises an error if the directory that it is given must not be replaced. It is called with
            `target` before the exchange, and with the directory that was taken from there after it. None if nothing
            may be replaced.

    Raises:
        FileExistsError: Something is at `target`, and nothing may be replaced.
        OSError: It cannot be put there. After any error, `target` is as it was.
    """
    sync_tree(new)
    with held(), locked_directory(target.parent):  # no other writer may see the moments between the steps
        if replaceable is None or not os.path.lexists(target):
            rename_new(new, target)
        else:
            replaceable(target)
            _replace(new, target, replaceable)
        sync_directory(target.parent)


def collect(target: Path) -> None:
    """Remove the containers of killed processes beside `target`, and put back a directory that one of them moved away.

    Files of a living process are never touched. Without locks in the file system, nothing is.
    """
    ours = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}{re.escape(PARTIAL)}")
    with suppress(OSError):
        for container in [path for path in target.parent.iterdir() if ours.fullmatch(path.name)]:
            _collect_container(container, target)


def _replace(new: Path, target: Path, replaceable: Callable[[Path], None]) -> None:
    old = new if exchange(new, target) else new.with_name(_OLD)
    if old is not new:
        target.rename(old)
    try:
        replaceable(old)  # it may have changed since the first check
        if old is not new:
            rename_new(new, target)
    except BaseException:
        if old is new:
            exchange(new, target)
        else:
            _put_back(old, target)
        raise


def _put_back(old: Path, target: Path) -> None:
    try:
        rename_new(old, target)
    except FileExistsError:  # a program that ignores locks was faster; neither its directory nor `old` may be lost
        kept = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".kept", dir=target.parent))
        old.replace(kept)
        raise OSError(
            errno.EBUSY, f"another program wrote there; the previous content is in {kept}", str(target)
        ) from None


def _make_container(target: Path) -> tuple[Path, int]:
    while True:
        container = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=PARTIAL, dir=target.parent))
        with suppress(FileNotFoundError):  # another process took it for an abandoned one before it was locked
            descriptor = os.open(container / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            locked = lock(descriptor, wait=True)
            if not locked or (container / _LOCK).exists():
                (container / _NEW).mkdir()  # its mode follows the umask
                return container, descriptor
            os.close(descriptor)


def _collect_container(container: Path, target: Path) -> None:
    try:
        descriptor = os.open(container / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        with suppress(OSError):
            container.rmdir()  # its process was killed before it made the lock; a living one makes another container
        return
    except OSError:
        return
    try:
        if lock(descriptor, wait=False):
            with held():
                if (container / _OLD).exists() and not os.path.lexists(target):
                    rename_new(container / _OLD, target)
                _remove(container)
    finally:
        os.close(descriptor)


def _remove(container: Path) -> None:
    """Remove a container, its lock last, so that a half-removed one can still be collected."""
    for name in (_NEW, _OLD):
        shutil.rmtree(container / name, ignore_errors=True)
    with suppress(OSError):
        if not {_NEW, _OLD} & set(os.listdir(container)):  # noqa: PTH208 - names, not paths
            (container / _LOCK).unlink()
            container.rmdir()
