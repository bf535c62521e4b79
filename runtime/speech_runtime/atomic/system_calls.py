"""System calls behind atomic writes: locks, renames that replace nothing or exchange directories, syncing to disk."""

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_AT_FDCWD = -100
_LINUX = {"new": 1, "exchange": 2}
"""Flags of `renameat2`."""
_MACOS = {"new": 4, "exchange": 2}
"""Flags of `renamex_np`."""
_NO_SUCH_RENAME = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of kernels and file systems that do not know the flag."""
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}
"""Errors of systems that cannot sync a directory."""


def lock(descriptor: int, *, wait: bool) -> bool:
    """Lock the open file `descriptor` for this process alone until it is closed; the lock ends with the process.

    Returns:
        True if it is locked; False if another process holds it, or the file system has no locks.
    """
    if fcntl is None:
        return False
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return True
    return False


@contextmanager
def locked_directory(directory: Path) -> Iterator[bool]:
    """Wait for the lock of `directory` and hold it while the block runs; yields False where there are no locks."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield lock(descriptor, wait=True)
    finally:
        os.close(descriptor)


def rename_new(source: Path, target: Path) -> None:
    """Rename the directory `source` to `target`, where nothing may exist.

    On a system without such a rename, a plain one is used, which replaces no file and no directory that is not empty.

    Raises:
        FileExistsError: Something is at `target`.
        OSError: It cannot be renamed.
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
    """Exchange two directories in one step, so that neither is ever missing; False where the system cannot.

    Raises:
        OSError: One of them does not exist, or may not be renamed.
    """
    return _rename(one, other, "exchange")


def sync_directory(directory: Path) -> None:
    """Write the names in `directory` to disk, where the system can."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Write every file below `directory` to disk, and then every directory, the deepest first."""
    for parent, _, files in os.walk(directory, topdown=False):
        for name in files:
            descriptor = os.open(Path(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(parent))


def _rename(source: Path, target: Path, kind: str) -> bool:
    call = _rename_call()
    if call is None:
        return False
    code = call(os.fsencode(source), os.fsencode(target), kind)
    if code in _NO_SUCH_RENAME:
        return False
    if code:
        raise OSError(code, os.strerror(code), str(source), None, str(target))
    return True


@cache
def _rename_call() -> Callable[[bytes, bytes, str], int] | None:
    """Return a function that renames with a flag and returns the error number or 0; None if the C library has none."""
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
