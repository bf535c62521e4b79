"""The execution provider for TensorRT-RTX: a plugin in a package of its own, which a stock ONNX Runtime loads.

See https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries/usage.html for the calls, and
https://nvidia.github.io/TensorRT-RTX-EP-ABI/ for the plugin.
"""

import importlib
import importlib.util
from typing import Any

from ...errors import EngineError
from ...install_hints import how_to_install
from ..cuda.calls import Cuda
from ..options import TENSORRT_RTX
from ..tensorrt.supported_gpus import rtx_refusal
from .releases import release

EXTRA = "tensorrt-rtx-plugin"
_MODULE = "onnxruntime_ep_nv_tensorrt_rtx"
_PACKAGE = "onnxruntime-ep-nv-tensorrt-rtx"
_LEAST_ONNX_RUNTIME = (1, 31)
"""First release in which "cuda" names the memory of a plugin too, for inputs and outputs."""
_ALREADY = "already registered"
"""Part of ONNX Runtime's error when a library is registered a second time under its name."""


def plugin_device(runtime: Any, device_id: int) -> Any:
    """Load the plugin into the process, once, and return its device, an `OrtEpDevice`, for the GPU `device_id`.

    Args:
        runtime: Module `onnxruntime`.
        device_id: Number of the GPU, as CUDA counts.

    Raises:
        EngineError: The plugin is not installed or does not load, ONNX Runtime is too old for it, or the GPU is missing
            or not supported.
    """
    if importlib.util.find_spec(_MODULE) is None:
        raise EngineError(
            f"device 'tensorrt_rtx' needs the package {_PACKAGE}, a plugin for ONNX Runtime, and it is not installed: "
            f"{how_to_install(EXTRA)}"
        )
    _check_version(runtime)
    capability = Cuda(device_id).compute_capability
    if refusal := rtx_refusal(capability):
        raise EngineError(f"{refusal}: give device='cuda', or device='tensorrt', which takes TensorRT itself")
    _register(runtime)
    in_memory = runtime.OrtDeviceMemoryType.DEFAULT
    found = {
        memory.device_id: device  # the number that CUDA gives it
        for device in runtime.get_ep_devices()
        if device.ep_name == TENSORRT_RTX and (memory := device.memory_info(in_memory)) is not None
    }
    if device_id not in found:
        others = f", only {', '.join(map(str, found))}" if found else ""
        raise EngineError(
            f"{_PACKAGE} does not offer GPU {device_id} (compute capability {capability}){others}. It takes fewer GPUs "
            "than TensorRT-RTX itself (release 0.5: 8.6, 8.9, 12.0 and later), needs an NVIDIA driver from 555.85 on, "
            "and sees only GPUs that are in /sys/bus/pci/devices, also in a container; device='engines' and "
            "device='cuda' do without it"
        )
    return found[device_id]


def _check_version(runtime: Any) -> None:
    if release(runtime) < _LEAST_ONNX_RUNTIME:
        raise EngineError(
            f"device 'tensorrt_rtx' needs ONNX Runtime {'.'.join(map(str, _LEAST_ONNX_RUNTIME))} or later, and "
            f"{runtime.__version__} is installed: {how_to_install(EXTRA)}"
        )


def _register(runtime: Any) -> None:
    """Let ONNX Runtime load the library of the plugin, unless it has done so before."""
    try:
        package = importlib.import_module(_MODULE)  # loads the libraries that the plugin needs
        runtime.register_execution_provider_library(package.get_ep_name(), package.get_library_path())
    except Exception as error:  # ONNX Runtime's errors have no common base class
        if _ALREADY in str(error):
            return
        raise EngineError(
            f"the plugin {_PACKAGE} does not load: {' '.join(str(error).split())}. It needs the NVIDIA driver (see "
            f"nvidia-smi); if that is there, install the plugin again: {how_to_install(EXTRA)}"
        ) from error
