"""Optional packages: how to install them, and imports that fail with that remedy."""

import json
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any
from urllib.parse import unquote, urlsplit

from .errors import AudioError

_NO_BUILD_FOR_MACOS = {
    "cuda": "onnxruntime-gpu",
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT-RTX",
    "tensorrt-rtx-plugin": "TensorRT-RTX",
}


def how_to_install(*extras: str, first: str = "") -> str:
    """Return how to install the packages of `extras`, or that this platform has no build of them.

    Args:
        extras: Extras of this package.
        first: Command to run before.

    Returns:
        Text such as "pip install 'speech-export[cuda,tensorrt]'", with the path of the checkout if this package was
        installed from one.
    """
    absent = [_NO_BUILD_FOR_MACOS[extra] for extra in extras if extra in _NO_BUILD_FOR_MACOS]
    if absent and sys.platform == "darwin":
        return f"there is no {' and no '.join(absent)} for macOS; export without --target and give device='cpu'"
    return f"{first and f'{first}, then '}pip install '{source()}[{','.join(extras)}]'"


def source() -> str:
    """Return what pip is to install this package from: the directory that it was installed from, or its name.

    pip keeps the directory in `direct_url.json`: https://packaging.python.org/en/latest/specifications/direct-url/
    """
    name = "speech-export"
    try:
        origin = json.loads(distribution(name).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return name
    return unquote(urlsplit(origin["url"]).path) if "dir_info" in origin else name


def import_audio_library(library: str) -> Any:
    """Import a library of the extra `audio`; it is imported only when audio is read.

    Raises:
        AudioError: The library is not installed, or cannot be imported.
    """
    try:
        return import_module(library)
    except (ImportError, OSError, MemoryError) as error:  # it or a part of it is missing, or memory is exhausted
        if isinstance(error, ModuleNotFoundError) and error.name == library:
            raise AudioError(f"{library} is needed to read audio: {how_to_install('audio')}") from error
        reason = str(error) or type(error).__name__
        raise AudioError(
            f"{library} is installed, but cannot be imported: {reason}; fix that, or install it again"
        ) from error
