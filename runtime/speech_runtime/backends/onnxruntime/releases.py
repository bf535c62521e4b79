"""Releases of ONNX Runtime, and which of them has the kernels for a bundle."""

import re
from typing import Any

from ...bundle.loading import Bundle
from ...errors import EngineError
from ...install_hints import how_to_install

_LEAST_FOR_CUDA = (1, 30)
"""Older releases compute many operators of opset 24 on the CPU: a kernel is used only for the versions of an operator
that it is registered for, which its CUDA provider was not until then."""


def release(runtime: Any) -> tuple[int, ...]:
    """Return the release of the module `onnxruntime`, such as (1, 32)."""
    return tuple(int(number) for number in re.findall(r"\d+", runtime.__version__)[:2])


def check_release(runtime: Any, bundle: Bundle) -> None:
    """Check that the module `onnxruntime` is new enough for `bundle`.

    Raises:
        EngineError: It is too old.
    """
    if bundle.manifest.decoder.cache == "tree" and release(runtime) < _LEAST_FOR_CUDA:
        least = ".".join(map(str, _LEAST_FOR_CUDA))
        raise EngineError(
            f"{bundle.directory} was exported for CUDA and needs ONNX Runtime {least} or later, and "
            f"{runtime.__version__} is installed: {how_to_install('cuda')} --upgrade, or export the model again with "
            "--target tensorrt"
        )
