"""What is measured on: the options of a device, whether it is there, and what its engines take."""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

from ..backends.cuda.calls import Cuda
from ..backends.devices import Options, options_for, with_cuda_graphs
from ..backends.onnxruntime.providers import import_onnxruntime
from ..backends.onnxruntime.session_options import SessionOptions
from ..backends.tensorrt.engine_sets import choose_engines
from ..backends.tensorrt.library import import_tensorrt
from ..backends.tensorrt.options import EngineOptions
from ..bundle.loading import Bundle
from ..bundle.profile_limits import ProfileLimits
from .options import Case

_LIMITED = ("seconds", "batch", "beams", "tokens")


def bench_options(device: str, threads: int, cuda_graphs: int = 0) -> Options:
    """The options that a case runs with.

    Raises:
        EngineError: an unknown device, or one that records no CUDA graphs where some are wanted.
    """
    options = with_cuda_graphs(options_for(device), cuda_graphs)
    return replace(options, intra_op_threads=threads) if isinstance(options, SessionOptions) else options


def import_libraries(device: str) -> None:
    """Import what runs the graphs on `device`: it is no part of the time that a bundle takes to load.

    Raises:
        EngineError: a library, or the provider for the device, is missing.
    """
    options = options_for(device)
    if isinstance(options, SessionOptions):
        import_onnxruntime(options)
    else:
        import_tensorrt(options.flavor)


def engine_limits(bundle: Bundle, device: str) -> ProfileLimits | None:
    """What the engines of `bundle` for this GPU take; None where it is not they that run.

    Raises:
        EngineError: there is no GPU, or no engines fit it.
    """
    options = options_for(device)
    if not isinstance(options, EngineOptions):
        return None
    capability = Cuda(options.device_id).compute_capability
    return choose_engines(bundle, import_tensorrt(options.flavor), capability, check_hashes=False).limits


def beyond(case: Case, limits: ProfileLimits) -> Iterator[str]:
    """What of `case` the engines do not take."""
    for name in _LIMITED:
        value, (least, _, most) = getattr(case, name), getattr(limits, name)
        if not least <= value <= most:
            yield f"{name} is {value:g}, and its engines were built for {least:g} to {most:g}"


def gpu_of(device: str) -> Cuda | None:
    """The GPU that `device` names; None for the CPU, and where cuda-python is not installed.

    Raises:
        EngineError: there is none.
    """
    options = options_for(device)
    on_cpu = isinstance(options, SessionOptions) and options.device == "cpu"
    if on_cpu or importlib.util.find_spec("cuda") is None:
        return None
    return Cuda(options.device_id)
