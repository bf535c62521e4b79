"""Files that are opened only where they are files: a pipe would wait for its writer, a device never end."""

import errno
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

_LARGEST_JSON = 16 * 2**20
"""Bytes of a configuration: the largest that the exporter writes has a thousandth of it."""
_DEEPEST = 100
"""Lists and objects within each other: a configuration of transformers has five."""


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading bytes; links are followed.

    Raises:
        OSError: there is none, it cannot be read, or it is something else than a file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise _not_regular(path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # exchanged between the two looks
        os.close(descriptor)
        raise _not_regular(path)
    return os.fdopen(descriptor, "rb")


def is_there(path: str | Path) -> bool:
    """Whether there is such a path. One that may not be looked at is none, nor is one whose name is too long.

    `Path.exists` raises for them before Python 3.14.
    """
    return os.path.exists(path)  # noqa: PTH110


def is_directory(path: str | Path) -> bool:
    """Whether there is such a directory; see `is_there`."""
    return os.path.isdir(path)  # noqa: PTH112


def read_json(path: Path) -> Any:
    """Parse a file of JSON.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, is no JSON, is nested too deep, or has a key twice or a number that is too large.
    """
    with open_regular(path) as file:
        # Asked for more, Python would take the memory first: 16 MiB for a file of some hundred bytes.
        content = file.read(min(os.fstat(file.fileno()).st_size, _LARGEST_JSON) + 1)
    if len(content) > _LARGEST_JSON:
        raise ValueError(f"it has more than {_LARGEST_JSON:,} bytes")
    return parse_json(content.decode("utf-8"))


def parse_json(text: str) -> Any:
    """Parse JSON, which may be of anybody.

    Raises:
        ValueError: see `read_json`.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_float=_finite)
        deep = _is_deep(content)  # Python 3.14 parses what no other function of its own can walk through
    except RecursionError:
        deep = True
    if deep:
        raise ValueError("its lists and objects are nested too deeply")
    return content


def unreadable(error: OSError | ValueError) -> str:
    """Say why JSON could not be read; the caller names the file."""
    return str(error.strerror if isinstance(error, OSError) else error)


def _not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "is not a regular file", str(path))


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it has the key {name[:120]!r} twice")
    return content


def _is_deep(content: object) -> bool:
    """Return whether lists and objects are nested deeper than any configuration's."""
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
