"""Checks of a checkpoint's directory that need no library of an export: a wrong name is answered at once."""

import errno
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path

from speech_runtime.bundle.safe_files import is_directory, similar_directory

from ..errors import ExportError, shortened

CONFIG_FILES = ("config.json",)
ADAPTER_CONFIG = "adapter_config.json"
SAVE_PRETRAINED = (
    "; give a directory that save_pretrained wrote (config.json, model.safetensors, preprocessor_config.json and "
    "tokenizer.json)"
)
_HUB_ID = re.compile(r"(?!.*\.json$)\w[\w.-]*(/[\w.-]+)?", re.ASCII)


def check_directory(name: str) -> None:
    """Check that `name` is a directory or a possible Hub id: transformers takes any other path for a Hub id.

    Raises:
        ExportError: `name` is a file, cannot be read, or is neither an existing path nor a possible Hub id.
    """
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116 - it may be a Hub id
    except (FileNotFoundError, NotADirectoryError, ValueError):
        if not _HUB_ID.fullmatch(name):
            raise ExportError(
                f"{name}: there is no such file or directory{similar_directory(Path(name))}; give a directory, or "
                "a Hub id like owner/name"
            ) from None
        return
    except OSError as error:
        raise ExportError(f"{name} cannot be read: {error.strerror}; check its name and permissions") from error
    if not stat.S_ISDIR(mode):
        raise ExportError(f"{name} is a file; give the directory that it is in: {Path(name).parent}")
    if not os.access(name, os.R_OK | os.X_OK):
        raise ExportError(f"{name} cannot be read: {os.strerror(errno.EACCES)}; check its permissions")


def check_configured(name: str) -> None:
    """Check that `name` is a directory with the configuration of a model or of an adapter, or a possible Hub id.

    Raises:
        ExportError: It is neither.
    """
    check_directory(name)
    if is_directory(name) and (missing := missing_files(name, (*CONFIG_FILES, ADAPTER_CONFIG))):
        raise ExportError(
            f"{name}: a configuration could not be loaded from this directory: {missing}{SAVE_PRETRAINED}"
        )


def check_adapter(name: str) -> None:
    """Check that `name` is a directory with an adapter, or a possible Hub id.

    Raises:
        ExportError: It is neither.
    """
    check_directory(name)
    if is_directory(name) and (missing := missing_files(name, (ADAPTER_CONFIG,))):
        raise ExportError(
            f"{name} is not an adapter of peft: {missing}; give the directory that save_pretrained of peft wrote "
            f"({ADAPTER_CONFIG}, adapter_model.safetensors)"
        )


def missing_files(name: str, patterns: Collection[str]) -> str:
    """Return what a directory lacks and what it holds, if no file matches any of `patterns`; else an empty string."""
    if any(next(Path(name).glob(pattern), None) for pattern in patterns):
        return ""
    found = shortened(sorted(path.name for path in Path(name).iterdir()), 6) or "nothing"
    wanted = " or ".join(pattern for pattern in patterns if "*" not in pattern)
    return f"it has no {wanted}{_checkpoint_below(name, patterns)}; it holds {found}"


def _checkpoint_below(name: str, patterns: Collection[str]) -> str:
    """Return a hint if a subdirectory, such as a trainer's checkpoint-500, has the files; else an empty string."""
    below = sorted(path.parent for pattern in patterns for path in Path(name).glob(f"*/{pattern}"))
    return f" (did you mean {below[-1]}?)" if below else ""
