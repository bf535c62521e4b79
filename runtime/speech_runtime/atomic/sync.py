"""Files and directories that are on the disk, and not only in the system's memory, when the call returns."""

import errno
import os
from pathlib import Path

_UNABLE = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}
"""What systems answer that cannot sync a directory."""


def sync_directory(directory: Path) -> None:
    """Sync the names in `directory`, where the system is able to."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Sync every file below `directory`, and then every directory, the lowest first."""
    for parent, _, files in os.walk(directory, topdown=False):
        for name in files:
            descriptor = os.open(Path(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(parent))
