"""Cache directories for files that are loaded like programs: no other user may write there, and changes are noticed.

The file `files.json` of a directory records the size and SHA-256 of every other file.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ..atomic.writing import write_text
from ..bundle.safe_files import FileFacts, read_json, unreadable
from ..dataclass_json import from_json

RECORD = "files.json"
_NAME_LENGTH = 32


def cache_name(known: Mapping[str, object]) -> str:
    """Return the name of a cache entry that depends on all values in `known`, which must be JSON."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:_NAME_LENGTH]


def private_directory(directory: Path) -> None:
    """Create `directory` if it does not exist, readable for this user only.

    Raises:
        OSError: The directory cannot be created, belongs to another user, or other users may write to it, so that its
            files may come from anybody.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    if not hasattr(os, "getuid"):  # Windows: folders of a user are private by default
        return
    found = directory.stat()
    if found.st_uid not in (os.getuid(), 0):
        raise PermissionError(errno.EPERM, "belongs to another user; choose a directory of your own", str(directory))
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "other users may write to it; chmod 700, or choose another", str(directory))


def write_record(directory: Path) -> None:
    """Record the files in `directory` as they are now.

    Raises:
        OSError: An entry cannot be read or is not a file, or the record cannot be written.
    """
    files = {name: asdict(FileFacts.of(directory / name)) for name in _names(directory)}
    write_text(directory / RECORD, json.dumps(files))


def record_problems(directory: Path, *, check_hashes: bool) -> dict[str, str]:
    """Return the problem of each file that is missing, changed or not recorded, by name.

    Args:
        directory: Directory with a record. Without a record, every file has a problem.
        check_hashes: If true, compare SHA-256; sizes are always compared.

    Raises:
        OSError: `directory` cannot be read.
    """
    names = _names(directory)
    try:
        content = read_json(directory / RECORD)
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
        recorded = {name: from_json(FileFacts, facts) for name, facts in content.items()}
    except (OSError, ValueError) as error:
        return dict.fromkeys(names, f"{RECORD} cannot be read: {unreadable(error)}")
    found = {name: f"{name} is missing" for name in recorded if name not in names}
    for name in names:
        if name not in recorded:
            found[name] = f"{name} is not in {RECORD}"
        elif problem := recorded[name].problem(directory / name, "it was written", check_hashes=check_hashes):
            found[name] = problem
    return found


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != RECORD)
