"""What is known of a file that must stay as it was written: its size and its SHA-256."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from .regular_files import open_regular


@dataclass(frozen=True)
class FileFacts:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileFacts":
        """Read them off the file at `path`."""
        with open_regular(path) as file:
            return cls(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())

    def problem(self, path: Path, written: str, *, check_hashes: bool) -> str | None:
        """Why the file at `path` is not what it was after `written`, "the export" for example; None where it is."""
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
