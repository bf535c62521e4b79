"""Load the graphs of a bundle with the backend that the options choose."""

from dataclasses import replace

from ..bundle.loading import Bundle
from ..bundle.manifest import Manifest
from ..errors import EngineError
from .base import Backend
from .onnxruntime.backend import OnnxRuntimeBackend
from .options import ENGINES, Options, SessionOptions
from .tensorrt.backend import TensorRtBackend

_TARGETS: dict[str, tuple[str, ...]] = {
    "cpu": ("cpu", "cuda", "tensorrt"),
    "cuda": ("cuda", "tensorrt"),
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt",),
    ENGINES: ("tensorrt",),
}
"""Targets whose graphs each device takes, its own first. Graphs for TensorRT are standard ONNX."""


def load_backend(bundle: Bundle, options: Options, *, check_hashes: bool = True) -> tuple[Backend, Manifest]:
    """Load the graphs of `bundle`.

    Returns:
        The backend and the manifest. TensorRT's profiles limit the tokens of a step, so that `max_tokens` of the
        manifest may be lower than in the bundle; longer prompts are decoded in pieces.

    Raises:
        EngineError: A library, the device or engines for it are missing, or the bundle was exported for another device.
        BundleError: A graph does not match the manifest.
    """
    manifest = bundle.manifest
    check_target(bundle, options)
    if isinstance(options, SessionOptions):
        return OnnxRuntimeBackend(bundle, options, check_hashes=check_hashes), manifest
    backend = TensorRtBackend(bundle, options, check_hashes=check_hashes)
    step_tokens = min(backend.step_tokens, manifest.decoder.max_tokens or backend.step_tokens)
    return backend, replace(manifest, decoder=replace(manifest.decoder, max_tokens=step_tokens))


def check_target(bundle: Bundle, options: Options) -> None:
    """Check that the device of `options` takes the graphs of `bundle`.

    Raises:
        EngineError: The bundle was exported for another device.
    """
    device = options.device if isinstance(options, SessionOptions) else ENGINES
    made_for, takes = bundle.manifest.target, _TARGETS[device]
    if made_for not in takes:
        other = "the CPU" if made_for == "cpu" else "CUDA"
        raise EngineError(
            f"{bundle.directory} was exported for {other}, with operators that device {device!r} does not support or "
            f"runs slowly: export the model again with --target {takes[0]}"
        )
