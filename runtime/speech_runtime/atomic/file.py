"""A text file that is replaced whole."""

import os
import secrets
from pathlib import Path

from .sync import sync_directory

PARTIAL = ".partial"
_NAME = 50
"""Characters of a file's name that are in the name of its half written one: 4 bytes each at most, of 255."""


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write `text` as UTF-8 to `path`: whoever reads it finds the old text or the new one, after a power cut too.

    Args:
        path: where it goes.
        text: what is written.
        errors: what becomes of characters that UTF-8 does not have, as in `open`.

    Raises:
        OSError: it cannot be written; the old file is as it was, and nothing is left beside it.
    """
    # The longest name that a file may have leaves no room for more.
    partial = path.with_name(f".{path.name[:_NAME]}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with partial.open("x", encoding="utf-8", errors=errors) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    finally:
        partial.unlink(missing_ok=True)
