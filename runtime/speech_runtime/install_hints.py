"""Remedy for errors about missing packages."""

import sys

_NO_BUILD_FOR_MACOS = {"cuda": "onnxruntime-gpu", "tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


def how_to_install(*extras: str, first: str = "") -> str:
    """Return how to install the packages of `extras`, or that this platform has no build of them.

    Args:
        extras: Extras of this package.
        first: Command to run before.

    Returns:
        Text such as "pip install 'speech-export[cuda,tensorrt]'".
    """
    absent = [_NO_BUILD_FOR_MACOS[extra] for extra in extras if extra in _NO_BUILD_FOR_MACOS]
    if absent and sys.platform == "darwin":
        return f"there is no {' and no '.join(absent)} for macOS; export without --target and give device='cpu'"
    return f"{first and f'{first}, then '}pip install 'speech-export[{','.join(extras)}]'"
