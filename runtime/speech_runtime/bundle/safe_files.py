"""Safe reading of untrusted files: regular files only, bounded JSON, sizes and hashes, pinned directories."""

import errno
import hashlib
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from io import BufferedReader
from pathlib import Path
from typing import Any

_LARGEST_JSON = 16 * 2**20
"""Bytes of a configuration file. The largest that the exporter writes has a thousandth of it."""
_DEEPEST = 100
"""Levels of nested lists and objects in JSON. A configuration of transformers has five."""
_DESCRIPTORS = Path("/proc/self/fd")

Identity = tuple[int, ...]
"""Device, inode, size, and times of the last change of content and status."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading bytes; links are followed.

    Anything else is refused: a pipe would wait for its writer, a device might never end.

    Raises:
        OSError: There is no such file, it cannot be read, or it is not a regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise _not_regular(path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it was replaced between the two checks
        os.close(descriptor)
        raise _not_regular(path)
    return os.fdopen(descriptor, "rb")


def is_there(path: str | Path) -> bool:
    """Return whether a path exists. A path that may not be looked at, or has too long a name, does not.

    `Path.exists` raises for those before Python 3.14.
    """
    return os.path.exists(path)  # noqa: PTH110


def is_directory(path: str | Path) -> bool:
    """Return whether a path is a directory, with the same exceptions as `is_there`."""
    return os.path.isdir(path)  # noqa: PTH112


def similar_directory(path: Path) -> str:
    """Return the end of an error about a missing directory: the one beside it with the most similar name, if any."""
    try:
        names = [entry.name for entry in path.parent.iterdir() if is_directory(entry)]
    except (OSError, ValueError):
        names = []
    similar = get_close_matches(path.name, names, 1)
    return f" (did you mean {path.parent / similar[0]}?)" if similar else ""


@dataclass(frozen=True)
class FileFacts:
    """Size in bytes and SHA-256 of a file that must stay as it was written."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileFacts":
        """Measure the file at `path`."""
        with open_regular(path) as file:
            return cls(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())

    def problem(self, path: Path, written: str, *, check_hashes: bool) -> str | None:
        """Return how the file at `path` differs from these facts, or None if it does not.

        Args:
            path: File to check.
            written: Event after which the file must not have changed, "the export" for example.
            check_hashes: If true, compare the SHA-256 too.
        """
        try:
            with open_regular(path) as file:
                size = os.fstat(file.fileno()).st_size
                if size != self.size:
                    return f"{path.name} has {size:,} bytes instead of {self.size:,}"
                if check_hashes and hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:
                    return f"{path.name} was changed after {written} (its SHA-256 differs)"
        except FileNotFoundError:
            return f"{path.name} is missing"
        except OSError as error:
            return f"{path.name} cannot be read: {error.strerror}"
        return None


class PinnedDirectory:
    """An open directory that stays the same one, whatever is renamed to its name meanwhile; `pinned` makes one.

    Attributes:
        path: Path to read its files through. On Linux it leads to the open directory itself; elsewhere it is the real
            path, and `unchanged` checks that it led to the same directory all the time.
    """

    def __init__(self, directory: Path, descriptor: int) -> None:
        real = directory.resolve()
        through = _DESCRIPTORS / str(descriptor)
        self._direct = _identity(through) == _identity(descriptor)
        self.path = through if self._direct else real
        self._directory = _identity(descriptor)
        self._files: dict[Path, Identity | None] = {}

    def watch(self, name: str) -> Path:
        """Return the path of a file in it. `unchanged` checks this file from now on."""
        path = self.path / name
        self._files.setdefault(path, _identity(path))
        return path

    def unchanged(self) -> bool:
        """Return whether no watched file has changed since it was first watched."""
        if not self._direct and _identity(self.path) != self._directory:
            return False
        return all(_identity(path) == identity for path, identity in self._files.items())


@contextmanager
def pinned(directory: Path) -> Iterator[PinnedDirectory]:
    """Hold `directory` open while the block runs.

    Raises:
        OSError: It does not exist, is not a directory, or cannot be read.
    """
    descriptor = os.open(directory, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        yield PinnedDirectory(directory, descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is too large, not JSON, nested too deeply, or has a duplicate key or a number that is too large.
    """
    with open_regular(path) as file:
        # `read` allocates as much as its argument, which would be 16 MiB for a file of a few hundred bytes.
        content = file.read(min(os.fstat(file.fileno()).st_size, _LARGEST_JSON) + 1)
    if len(content) > _LARGEST_JSON:
        raise ValueError(f"it has more than {_LARGEST_JSON:,} bytes")
    return parse_json(content.decode("utf-8"))


def parse_json(text: str) -> Any:
    """Parse JSON from an untrusted source.

    Raises:
        ValueError: See `read_json`.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_float=_finite)
        deep = _is_deep(content)  # Python 3.14 parses any depth, but its other functions cannot walk through it
    except RecursionError:
        deep = True
    if deep:
        raise ValueError("its lists and objects are nested too deeply")
    return content


def unreadable(error: OSError | ValueError) -> str:
    """Return why `read_json` failed, for a message that names the file."""
    return str(error.strerror if isinstance(error, OSError) else error)


def _not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "is not a regular file", str(path))


def _identity(file: Path | int) -> Identity | None:
    """Return a value that changes when the file is replaced, written or renamed; None where there is no file."""
    try:
        found = os.stat(file)  # noqa: PTH116 - or a descriptor
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it has the key {name[:120]!r} twice")
    return content


def _is_deep(content: object) -> bool:
    """Return whether lists and objects are nested deeper than in any configuration."""
    level = [content]
    for _ in range(_DEEPEST):
        level = [item for part in level for item in _items(part)]
        if not level:
            return False
    return True


def _items(part: object) -> Iterable[object]:
    return part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number
