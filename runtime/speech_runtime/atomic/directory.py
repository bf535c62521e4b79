"""A directory that is written beside its place, and put there in one step.

Beside the target OUT is a container, `.OUT.<8 letters>.partial`, which only its owner may read, with

- `lock`, a file that is locked as long as the process lives which writes there;
- `new`, the directory that will be OUT;
- `old`, the directory that was OUT, for the moment between two renames where the system cannot exchange them.

A container whose lock is free belongs to a process that was killed: the next run for OUT removes it, and puts `old`
back first where OUT is missing.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..interrupts import held
from .file import PARTIAL
from .lock import lock, locked_directory
from .rename import exchange, rename_new
from .sync import sync_directory, sync_tree

_LOCK, _NEW, _OLD = "lock", "new", "old"


@contextmanager
def staging_directory(target: Path) -> Iterator[Path]:
    """Make an empty directory beside `target`, for `publish`; it is gone when the block ends.

    What killed processes left of the same `target` is collected first.

    Raises:
        OSError: the parent of `target` is not there, or cannot be written.
    """
    collect(target)
    with held():  # Ctrl-C between making it and the block that removes it would leave it behind
        container, descriptor = _make_container(target)
    try:
        yield container / _NEW
    finally:
        with held():
            _remove(container)
            os.close(descriptor)


def publish(new: Path, target: Path, replaceable: Callable[[Path], None] | None = None) -> None:
    """Put the directory `new` of `staging_directory` at `target`; its content is on the disk before it appears there.

    Args:
        new: the directory.
        target: its place.
        replaceable: raises an error where the directory that it is given must not be replaced; it is asked for what is
            at `target` before, and for what was taken from there after. None where nothing may be at `target`.

    Raises:
        FileExistsError: something is at `target`, and nothing may be replaced.
        OSError: it cannot be put there. Whatever is raised, what was at `target` still is.
    """
    sync_tree(new)
    with held(), locked_directory(target.parent):  # what is taken from there and put back is not another's meanwhile
        if replaceable is None or not os.path.lexists(target):
            rename_new(new, target)
        else:
            replaceable(target)
            _replace(new, target, replaceable)
        sync_directory(target.parent)


def collect(target: Path) -> None:
    """Remove what killed processes left beside `target`, and put back what one of them had taken away.

    Files of a process that lives are never touched, nor any where the file system knows no locks.
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
        replaceable(old)  # somebody may have changed it since it was looked at
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
    except FileExistsError:  # a program that knows nothing of locks was faster: nothing of it is lost, nor of `old`
        kept = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".kept", dir=target.parent))
        old.replace(kept)
        raise OSError(errno.EBUSY, f"something new is there; what was there before is {kept}", str(target)) from None


def _make_container(target: Path) -> tuple[Path, int]:
    while True:
        container = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=PARTIAL, dir=target.parent))
        with suppress(FileNotFoundError):  # another process took it for a dead one, before it was locked
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
            container.rmdir()  # a process was killed before it made the lock; one that lives makes another container
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
    """Remove a container, its lock last: one that is half removed can be collected."""
    for name in (_NEW, _OLD):
        shutil.rmtree(container / name, ignore_errors=True)
    with suppress(OSError):
        if not {_NEW, _OLD} & set(os.listdir(container)):  # noqa: PTH208 - names, not paths
            (container / _LOCK).unlink()
            container.rmdir()
