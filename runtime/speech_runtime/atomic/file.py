"""A text file that is replaced whole."""

import os
import secrets
from pathlib import Path

from .sync import sync_directory

PARTIAL = ".partial"


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`: whoever reads it finds the old text or the new one, after a power cut too.

    Raises:
        OSError: it cannot be written; the old file is as it was, and nothing is left beside it.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with partial.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    finally:
        partial.unlink(missing_ok=True)
