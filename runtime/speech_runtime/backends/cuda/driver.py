"""The free memory of a GPU, from NVIDIA's driver itself: what runs on CUDA has it, and need not have cuda-python."""

import ctypes
import sys
from typing import Any

from ...errors import EngineError

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def free_memory(device_id: int, library: Any = None) -> int:
    """Return the bytes of the GPU's memory that no process uses.

    Args:
        device_id: Number of the GPU.
        library: The driver's library; loaded if None.

    Raises:
        EngineError: The driver refuses a call.
    """
    driver = ctypes.CDLL(LIBRARY) if library is None else library
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _checked(driver, "cuInit", 0)
    _checked(driver, "cuDeviceGet", ctypes.byref(device), device_id)
    # The primary context is the one that ONNX Runtime uses.
    _checked(driver, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        _checked(driver, "cuCtxPushCurrent_v2", context)
        try:
            _checked(driver, "cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        finally:
            _checked(driver, "cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
    finally:
        _checked(driver, "cuDevicePrimaryCtxRelease_v2", device)
    return free.value


def _checked(driver: Any, name: str, *arguments: Any) -> None:
    status = getattr(driver, name)(*arguments)
    if status:
        raise EngineError(f"CUDA cannot be used: {name} failed with {status}; check the NVIDIA driver with nvidia-smi")
