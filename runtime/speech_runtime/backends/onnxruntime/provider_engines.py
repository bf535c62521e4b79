"""The cache of engines that ONNX Runtime's execution providers write to a directory and load from there.

Engines are machine code, and ONNX Runtime keeps no hashes of them. So hashes are recorded here: after the sessions are
made, and again when they are closed, since TensorRT builds further engines for shapes beyond its limits, and
TensorRT-RTX writes its compiled kernels at the end. Files that do not match the record, those of a killed process
included, are removed before ONNX Runtime sees them, and are built again.
"""

import logging
import shutil
import weakref
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...atomic.system_calls import locked_directory
from ...dataclass_json import listed
from ...errors import EngineError
from ..cache_directory import private_directory, record_problems, write_record

logger = logging.getLogger(__name__)

Sessions = MutableMapping[str, Any]


@contextmanager
def recorded_engines(directory: Path | None, *, check_hashes: bool) -> Iterator[None]:
    """Check the engines in `directory`, and record them again when the block ends; make the sessions in the block.

    Another process that makes sessions with the same engines waits until the block ends, and then finds them.

    Args:
        directory: Directory for the engines of one model, inside the cache for all models; None for no cache.
        check_hashes: If true, compare SHA-256; sizes are always compared.

    Raises:
        EngineError: The directory cannot be written, or other users may write to it.
    """
    if directory is None:
        yield
        return
    with _explained(directory):
        private_directory(directory.parent)
        private_directory(directory)
    with locked_directory(directory):
        with _explained(directory):
            _remove_changed(directory, check_hashes)
        yield
        with _explained(directory):
            write_record(directory)


def record_at_end(owner: object, sessions: Sessions, directory: Path | None) -> None:
    """Close `sessions` when `owner` is collected or the process exits, and record the engines in `directory`."""
    if directory is not None:
        weakref.finalize(owner, _close, sessions, directory)


def _remove_changed(directory: Path, check_hashes: bool) -> None:
    problems = record_problems(directory, check_hashes=check_hashes)
    if not problems:
        return
    logger.warning(
        "Engines in %s were changed since they were written; they are removed, and built again: %s",
        *(directory, listed(list(problems.values()))),
    )
    for path in [path for path in directory.iterdir() if path.name in problems]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    write_record(directory)


def _close(sessions: Sessions, directory: Path) -> None:
    sessions.clear()
    with suppress(OSError):  # engines that are not recorded are built again
        if record_problems(directory, check_hashes=True):
            write_record(directory)


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineError(
            f"engine_cache cannot be used: {error.filename or directory}: {error.strerror}; choose another directory, "
            "or leave it out"
        ) from error
