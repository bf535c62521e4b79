"""What this machine lacks to run a device, and how much of the device's memory is used."""

import ctypes
import resource
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import onnxruntime

from speech_runtime import EngineError, SessionOptions
from speech_runtime.backends.cuda.calls import Cuda
from speech_runtime.backends.onnxruntime.plugin import plugin_device
from speech_runtime.backends.onnxruntime.providers import preload_libraries
from speech_runtime.backends.options import CUDA, TENSORRT
from speech_runtime.backends.tensorrt.library import import_tensorrt
from speech_runtime.backends.tensorrt.supported_gpus import rtx_refusal

ALLOWED_GROWTH = 32 * 2**20
"""Bytes of growth to allow: arenas settle, while leaking the caches of one utterance would take more."""
DEVICES = ("cuda", "tensorrt", "tensorrt_rtx", "engines")
_PROVIDERS = {"cuda": CUDA, "tensorrt": TENSORRT}
_NVINFER = "libnvinfer.so.10"
"""Library that ONNX Runtime's provider for TensorRT is linked against; the provider is listed without it, too."""


@cache
def missing(device: str) -> str:
    """Return why `device` cannot be used on this machine; empty if it can."""
    if device == "cpu":
        return ""
    try:
        gpu = Cuda()
        if device == "engines":
            return rtx_refusal(gpu.compute_capability) if import_tensorrt().flavor == "tensorrt_rtx" else ""
        if device == "tensorrt_rtx":
            plugin_device(onnxruntime, 0)
            return ""
    except EngineError as error:
        return str(error)
    return _missing_for_provider(device)


def _missing_for_provider(device: str) -> str:
    if _PROVIDERS[device] not in onnxruntime.get_available_providers():
        return f"this ONNX Runtime has no {_PROVIDERS[device]}"
    if problems := preload_libraries(onnxruntime, SessionOptions(device="cuda")):
        return problems
    if device == "tensorrt" and sys.platform == "linux":
        with suppress(EngineError):
            import_tensorrt("tensorrt")  # loads the library, if it comes with the package
        try:
            ctypes.CDLL(_NVINFER)
        except OSError as error:
            return str(error)
    return ""


def used_memory(device: str) -> int:
    """Return the bytes that are used of the memory of `device`; on a CPU, by this process."""
    if device != "cpu":
        return -Cuda().free_memory
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
