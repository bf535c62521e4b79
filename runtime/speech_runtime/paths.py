"""Paths as users write them."""

import os
from typing import overload


@overload
def expanded(path: str | os.PathLike[str]) -> str: ...


@overload
def expanded(path: None) -> None: ...


def expanded(path: str | os.PathLike[str] | None) -> str | None:
    """Return a path with the home directory in place of a leading `~`, which only shells replace.

    Unlike `Path.expanduser`, this keeps a name that begins with `~` and is no user's, and Hub ids.
    """
    if path is None:
        return None
    try:
        return os.path.expanduser(path)  # noqa: PTH111
    except ValueError:  # no user has a name with a null character; what opens the path reports it
        return os.fspath(path)
