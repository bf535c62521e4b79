"""From the name of a device to what runs the graphs there."""

from dataclasses import replace
from typing import get_args

from ..bundle.loading import Bundle
from ..bundle.manifest import Manifest
from ..errors import EngineError
from .base import Backend
from .onnxruntime.backend import OnnxRuntimeBackend
from .onnxruntime.session_options import Device, SessionOptions
from .tensorrt.backend import TensorRtBackend
from .tensorrt.options import EngineOptions

Options = SessionOptions | EngineOptions

ENGINES = "engines"
DEVICES: tuple[str, ...] = (*get_args(Device), ENGINES)
"""Those of ONNX Runtime, and the TensorRT engines of the bundle itself."""


def options_for(device: str | None, options: Options | None = None) -> Options:
    """The options for `device`: "cpu", "cuda", "cuda:1" for the second GPU, "tensorrt", "tensorrt_rtx" or "engines".

    Args:
        device: shorthand for options; None for those that are given.
        options: given ones; the defaults where there are none.

    Raises:
        EngineError: an unknown device, or options besides it.
    """
    if device is None:
        return options or SessionOptions()
    if options is not None:
        raise EngineError(f"device is {device!r}, and options are given too; set the device in the options")
    name, colon, number = device.partition(":")
    if name not in DEVICES or (colon and not number.isdecimal()):
        raise EngineError(
            f"unknown device {device!r}; known are {', '.join(DEVICES)}, and a GPU's number goes behind a colon: cuda:1"
        )
    if name == ENGINES:
        return EngineOptions(device_id=int(number or 0))
    return SessionOptions(device=name, device_id=int(number or 0))  # type: ignore[arg-type]  # it is one of them


def with_cuda_graphs(options: Options, cuda_graphs: int) -> Options:
    """The same options, with steps of so many sizes recorded as CUDA graphs; see `CudaOptions.cuda_graphs`.

    Raises:
        EngineError: it is no such number, or the device records none.
    """
    if isinstance(options, SessionOptions):
        return replace(options, cuda=replace(options.cuda, cuda_graphs=cuda_graphs))
    return replace(options, cuda_graphs=cuda_graphs)


def load_backend(bundle: Bundle, options: Options, *, check_hashes: bool = True) -> tuple[Backend, Manifest]:
    """Load the graphs of `bundle`.

    Returns:
        What runs them, and the facts that hold there: TensorRT's profiles limit the tokens of a step, and longer
        prompts are decoded in pieces.

    Raises:
        EngineError: a library, the device, or engines for it are missing; the graphs are for the CPU, and the
            device is another.
        BundleError: a graph is not what the manifest says.
    """
    manifest = bundle.manifest
    if isinstance(options, SessionOptions):
        _check_target(bundle, options.device)
        return OnnxRuntimeBackend(bundle, options, check_hashes=check_hashes), manifest
    backend = TensorRtBackend(bundle, options, check_hashes=check_hashes)
    step_tokens = min(backend.step_tokens, manifest.decoder.max_tokens or backend.step_tokens)
    return backend, replace(manifest, decoder=replace(manifest.decoder, max_tokens=step_tokens))


def _check_target(bundle: Bundle, device: Device) -> None:
    if device != "cpu" and bundle.manifest.target == "cpu":
        target = "cuda" if device == "cuda" else "tensorrt"
        raise EngineError(
            f"{bundle.directory} was exported for the CPU, with operations that device {device!r} does not know, or is "
            f"slow at: export the model again with --target {target}"
        )
