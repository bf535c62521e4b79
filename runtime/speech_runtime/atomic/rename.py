"""Renames that replace nothing, and that exchange two directories in one step, where the system is able to."""

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

_AT_FDCWD = -100
_LINUX = {"new": 1, "exchange": 2}
"""Flags of `renameat2`."""
_MACOS = {"new": 4, "exchange": 2}
"""Flags of `renamex_np`."""
_UNABLE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a kernel or a file system answers that does not know the flag."""


def rename_new(source: Path, target: Path) -> None:
    """Rename the directory `source` to `target`, where nothing may be.

    A system without such a rename has the plain one, which replaces no file and no directory with something in it.

    Raises:
        FileExistsError: something is there.
        OSError: it cannot be renamed.
    """
    if _rename(source, target, "new"):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        source.rename(target)
    except (IsADirectoryError, NotADirectoryError) as error:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error


def exchange(one: Path, other: Path) -> bool:
    """Exchange two directories so that at no moment one of them is missing; False where the system cannot.

    Raises:
        OSError: one of them is not there, or may not be renamed.
    """
    return _rename(one, other, "exchange")


def _rename(source: Path, target: Path, kind: str) -> bool:
    call = _system_call()
    if call is None:
        return False
    code = call(os.fsencode(source), os.fsencode(target), kind)
    if code in _UNABLE:
        return False
    if code:
        raise OSError(code, os.strerror(code), str(source), None, str(target))
    return True


@cache
def _system_call() -> Callable[[bytes, bytes, str], int] | None:
    """What renames with a flag and returns the error number, 0 for none; None where the C library has no such call."""
    if sys.platform not in ("linux", "darwin"):
        return None
    try:
        library = ctypes.CDLL(None, use_errno=True)
        function = library.renameat2 if sys.platform == "linux" else library.renamex_np
    except (OSError, AttributeError):
        return None
    text, number = ctypes.c_char_p, ctypes.c_uint
    function.argtypes = [ctypes.c_int, text, ctypes.c_int, text, number]
    if sys.platform == "darwin":
        function.argtypes = [text, text, number]

    def call(source: bytes, target: bytes, kind: str) -> int:
        if sys.platform == "darwin":
            failed = function(source, target, _MACOS[kind])
        else:
            failed = function(_AT_FDCWD, source, _AT_FDCWD, target, _LINUX[kind])
        return ctypes.get_errno() if failed else 0

    return call
