"""Execution providers of ONNX Runtime: a requested one that is missing is an error, never a slower answer."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import EngineError
from ...install_hints import how_to_install
from ..engine_messages import in_one_line
from ..options import CPU, CUDA, TENSORRT, TENSORRT_RTX, SessionOptions
from .plugin import EXTRA

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

_EXTRAS = {CPU: ("cpu",), CUDA: ("cuda",), TENSORRT: ("cuda", "tensorrt"), TENSORRT_RTX: (EXTRA,)}
_DRIVER = "libcuda.so.1"
_NEEDS = {
    CUDA: "the CUDA libraries, cuDNN 9 or the NVIDIA driver",
    TENSORRT: "the TensorRT libraries (libnvinfer), CUDA or the NVIDIA driver",
    TENSORRT_RTX: "the TensorRT-RTX libraries, CUDA or the NVIDIA driver",
}


def import_onnxruntime(options: SessionOptions) -> Any:
    """Import ONNX Runtime, and check that it has the providers of `options`.

    Raises:
        EngineError: ONNX Runtime is not installed, cannot be loaded, or its build lacks a provider.
    """
    requested = [name for name, _ in options.execution_providers]
    try:
        import onnxruntime
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            raise EngineError(f"ONNX Runtime is not installed: {_install(requested[0])}") from error
        raise EngineError(f"ONNX Runtime is installed, and cannot be loaded: {error}; install it again") from error
    available = onnxruntime.get_available_providers()
    for name in requested:
        if name not in available and name != TENSORRT_RTX:  # which comes as a plugin
            # Both builds unpack into the same folder, so that the CPU build may hide the other one.
            first = "pip uninstall onnxruntime" if name in (CUDA, TENSORRT) else ""
            raise EngineError(
                f"device {options.device!r} needs the {name}, and this ONNX Runtime has only {', '.join(available)}: "
                f"{_install(name, first)}"
            )
    return onnxruntime


def preload_libraries(runtime: Any, options: SessionOptions) -> str:
    """Load the CUDA and TensorRT libraries that pip installed, since the dynamic linker does not find them.

    Returns:
        Messages about libraries that did not load; empty if all did, or none are needed.
    """
    if options.device in ("cpu", "tensorrt_rtx"):  # the plugin brings its own
        return ""
    problems = io.StringIO()
    with contextlib.redirect_stdout(problems):  # `preload_dlls` prints the libraries that it did not find
        runtime.preload_dlls()
    messages = " ".join(problems.getvalue().split())
    if any(name == TENSORRT for name, _ in options.execution_providers):
        try:
            importlib.import_module("tensorrt")  # loads its libraries
        except (ImportError, OSError) as error:
            messages = f"{messages} {error}".strip()
    return f"{messages} {_driver_problem()}".strip()


def _driver_problem() -> str:
    """Return why the driver's library cannot be loaded; no package contains it. Empty if it can."""
    if sys.platform != "linux":
        return ""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError as error:
        return f"{error}, which comes with the NVIDIA driver: see nvidia-smi"
    return ""


def raise_provider_failure(error: Exception, requested: Sequence[str], messages: str) -> None:
    """Raise an error if a provider, not the graph, made `InferenceSession` fail.

    Args:
        error: Error of `InferenceSession`.
        requested: Names of the requested providers.
        messages: Messages that `preload_libraries` returned.

    Raises:
        EngineError: A provider cannot be set up.
    """
    of_graph = not isinstance(error, (RuntimeError, ValueError)) and type(error).__name__ != "EPFail"
    if of_graph or list(requested) == [CPU]:
        return
    logger.debug("the session was refused: %s", error)
    raise EngineError(
        f"{', '.join(requested)} cannot be set up: {in_one_line(str(error))}{_in_brackets(messages)}; check the "
        f"options, or {_install(requested[0])}"
    ) from error


def check_providers(session: onnxruntime.InferenceSession, requested: Sequence[str], messages: str) -> None:
    """Check that `session` has all the requested providers.

    Args:
        session: New session.
        requested: Names of the requested providers.
        messages: Messages that `preload_libraries` returned.

    Raises:
        EngineError: ONNX Runtime continued without a provider; the message has its libraries and the remedy.
    """
    running: Sequence[str] = session.get_providers()
    for name in requested:
        if name not in running:
            raise EngineError(
                f"ONNX Runtime fell back from {name} to {', '.join(running)}: {_NEEDS.get(name, 'its libraries')} did "
                f"not load{_in_brackets(messages)}. {_install(name)}"
            )


def _in_brackets(messages: str) -> str:
    return f" ({messages})" if messages else ""


def _install(provider: str, first: str = "") -> str:
    if provider not in _EXTRAS:
        return f"{first and f'{first}, then '}install a build of ONNX Runtime with the {provider}"
    return how_to_install(*_EXTRAS[provider], first=first)
