"""Engines that an execution provider of ONNX Runtime writes into a directory, and loads from there the next time.

They are machine code. ONNX Runtime has no hash of them, so one is recorded here: after the sessions are made, and again
when they are gone, since TensorRT builds further engines for shapes beyond its limits, and TensorRT-RTX writes what it
has compiled at the end. What is not as it was recorded is removed before ONNX Runtime looks, and is built again; what a
process left that was killed too.
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
    """Within this context sessions are made that load engines from `directory`, or write them; None for no directory.

    Another process that makes sessions with the same engines waits for its turn, and finds them then.

    Args:
        directory: of the engines of one model, within one for many.
        check_hashes: compare SHA-256; sizes are always compared.

    Raises:
        EngineError: the directory cannot be written, or others may write there too.
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
    """When `owner` is gone, or the process ends, drop its `sessions` and record what they have left in `directory`."""
    if directory is not None:
        weakref.finalize(owner, _close, sessions, directory)


def _remove_changed(directory: Path, check_hashes: bool) -> None:
    problems = record_problems(directory, check_hashes=check_hashes)
    if not problems:
        return
    logger.warning(
        "Engines in %s are not those that were written there; they are removed, and built again: %s",
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
    with suppress(OSError):  # what is not recorded is built again
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
