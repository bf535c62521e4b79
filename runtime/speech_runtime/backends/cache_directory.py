"""Directories of what is loaded as a program: nobody else may write there, and each file is what it was when written.

The record of a directory, `files.json` in it, has size and SHA-256 of every other file.
"""

import errno
import json
import os
import stat
from dataclasses import asdict
from pathlib import Path

from ..atomic.writing import write_text
from ..bundle.safe_files import FileFacts, read_json, unreadable
from ..dataclass_json import from_json

RECORD = "files.json"


def private_directory(directory: Path) -> None:
    """Make `directory`, where it is not there, so that only this user may look into it.

    Raises:
        OSError: it cannot be made; or it is another user's, or one that other users may write to: what is in it may be
            of anybody.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    if not hasattr(os, "getuid"):  # Windows has other permissions, and those of the user's folder are his own
        return
    found = directory.stat()
    if found.st_uid not in (os.getuid(), 0):
        raise PermissionError(errno.EPERM, "belongs to another user; choose a directory of your own", str(directory))
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "other users may write to it; chmod 700, or choose another", str(directory))


def write_record(directory: Path) -> None:
    """Record what the files in `directory` are now.

    Raises:
        OSError: one of them cannot be read, or is something else than a file; or the record cannot be written.
    """
    files = {name: asdict(FileFacts.of(directory / name)) for name in _names(directory)}
    write_text(directory / RECORD, json.dumps(files))


def record_problems(directory: Path, *, check_hashes: bool) -> dict[str, str]:
    """What is wrong with each file in `directory` that is not as it was recorded, and with those that are missing.

    Args:
        directory: with a record, or without one, where nothing in it is as it should be.
        check_hashes: compare SHA-256; sizes are always compared.

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
