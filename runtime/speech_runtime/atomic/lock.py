"""Locks that end with the process that holds them, however it ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(descriptor: int, *, wait: bool) -> bool:
    """Lock the open file `descriptor` for this process alone, until it is closed.

    Returns:
        Whether it is locked: False where another process holds it, or the file system knows no locks.
    """
    if fcntl is None:
        return False
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return True
    return False


@contextmanager
def locked_directory(directory: Path) -> Iterator[bool]:
    """Hold the lock of `directory` while the block runs, and wait for who has it; False where there are no locks."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield lock(descriptor, wait=True)
    finally:
        os.close(descriptor)
