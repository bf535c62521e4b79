"""A directory that stays the same one while its files are read, whatever is renamed to its name meanwhile."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")

Identity = tuple[int, ...]


class PinnedDirectory:
    """An open directory; `pinned` makes one.

    Attributes:
        path: what its files are read through. On Linux it leads to the open directory itself; elsewhere it is the real
            path, and `unchanged` says whether it led to the same directory all the time.
    """

    def __init__(self, directory: Path, descriptor: int) -> None:
        real = directory.resolve()
        through = _DESCRIPTORS / str(descriptor)
        self._direct = _identity(through) == _identity(descriptor)
        self.path = through if self._direct else real
        self._directory = _identity(descriptor)
        self._files: dict[Path, Identity | None] = {}

    def watch(self, name: str) -> Path:
        """The path of a file in it; `unchanged` looks at this file from now on."""
        path = self.path / name
        self._files.setdefault(path, _identity(path))
        return path

    def unchanged(self) -> bool:
        """Whether every watched file is what it was when it was first watched."""
        if not self._direct and _identity(self.path) != self._directory:
            return False
        return all(_identity(path) == identity for path, identity in self._files.items())


@contextmanager
def pinned(directory: Path) -> Iterator[PinnedDirectory]:
    """Hold `directory` open while the block runs.

    Raises:
        OSError: it is not there, is no directory, or cannot be read.
    """
    descriptor = os.open(directory, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        yield PinnedDirectory(directory, descriptor)
    finally:
        os.close(descriptor)


def _identity(file: Path | int) -> Identity | None:
    """What is another after a file was replaced, written or renamed; None where it is not there."""
    try:
        found = os.stat(file)  # noqa: PTH116 - or a descriptor
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
