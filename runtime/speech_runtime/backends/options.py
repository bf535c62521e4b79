"""Options of all backends: frozen dataclasses that are checked when they are made. For the GPU ones see docs/gpu.md."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

from ..bundle.manifest import Flavor
from ..bundle.profile_limits import ProfileLimits
from ..dataclass_json import Rule, at_least, between, problems
from ..errors import EngineError

Device = Literal["cpu", "cuda", "tensorrt", "tensorrt_rtx"]
GraphOptimization = Literal["disabled", "basic", "extended", "all"]
LogSeverity = Literal["verbose", "info", "warning", "error", "fatal"]
ConvolutionSearch = Literal["HEURISTIC", "EXHAUSTIVE", "DEFAULT"]
ArenaGrowth = Literal["kNextPowerOfTwo", "kSameAsRequested"]

MOST_THREADS = max(64, 4 * (os.cpu_count() or 1))
"""Largest number of threads. Each waits actively for work: with far more of them than cores, a run never ends."""

Threads = Annotated[
    int, Rule(lambda count: 0 <= count <= MOST_THREADS, f"0 (all cores) to {MOST_THREADS} threads (--threads)")
]
_DeviceId = Annotated[int, at_least(0, "the first GPU")]
_CudaGraphs = Annotated[int, Rule(lambda count: count >= 0, "a number of sizes, or 0 for no CUDA graphs")]
_SDPA_KERNELS = 1023
"""All kernels of `sdpa_kernel` that ONNX Runtime 1.31 has."""
_Directory = Annotated[str | Path | None, Rule(lambda path: path != "", "a directory, or None")]
Provider = Annotated[tuple[str, Mapping[str, object]], Rule(lambda _: True, "a pair of name and options")]
"""Name of an execution provider of ONNX Runtime, and its options."""

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
TENSORRT_RTX = "NvTensorRTRTXExecutionProvider"

_NVIDIA = (CUDA, TENSORRT, TENSORRT_RTX)
_PROVIDERS: dict[str, tuple[str, ...]] = {
    "cpu": (CPU,),
    "cuda": (CUDA,),
    "tensorrt": (TENSORRT, CUDA),
    "tensorrt_rtx": (TENSORRT_RTX,),
}
ENGINES = "engines"
DEVICES: tuple[str, ...] = (*get_args(Device), ENGINES)
"""Names of devices: those of ONNX Runtime, and "engines" for the TensorRT engines in the bundle."""


@dataclass(frozen=True)
class CudaOptions:
    """Options of ONNX Runtime's CUDA execution provider.

    Attributes:
        convolution_search: Choice of cuDNN's algorithms. EXHAUSTIVE times all of them again for every new length of
            audio, DEFAULT takes the first.
        tf32: If true, float32 products are rounded to TF32 (10 bits of mantissa): faster, no longer equal to the CPU.
        prefer_nhwc: If true, convolutions run with the channels last.
        arena_growth: Growth of the memory arena: to the next power of two, or by the size of the request.
        memory_limit: Largest size of the arena in bytes; None for all memory of the GPU.
        sdpa_kernel: Sum of the attention kernels to choose from, as in ONNX Runtime's option of that name: 1 flash, 2
            memory-efficient, 8 cuDNN; 0 for its own choice. cuDNN, which it prefers on Hopper and later, plans for each
            new length of audio, keeps all plans, and fails where it has none.
        cuda_graphs: Number of sizes (utterances, beams, frames of audio) whose steps are recorded as CUDA graphs when
            they first occur, and replayed from then on; 0 for none. Further sizes run without recordings. Needs a
            bundle whose steps have fixed shapes. If None, 64 with such a bundle, else 0.
        cuda_graph_memory: Largest share of the GPU's memory, of what is free once the bundle is loaded, that the caches
            of the recorded sizes may take. They stay on the GPU. Sizes beyond it run without recordings.

    Raises:
        EngineError: Values are unknown or out of range; all of them are listed.
    """

    convolution_search: ConvolutionSearch = "HEURISTIC"
    tf32: bool = False
    prefer_nhwc: bool = False
    arena_growth: ArenaGrowth = "kNextPowerOfTwo"
    memory_limit: Annotated[int, Rule(lambda size: size > 0, "a number of bytes above 0")] | None = None
    sdpa_kernel: Annotated[int, between(0, _SDPA_KERNELS, "ONNX Runtime's own choice")] = 3
    cuda_graphs: _CudaGraphs | None = None
    cuda_graph_memory: Annotated[float, between(0, 1, "no recordings")] = 0.25

    def __post_init__(self) -> None:
        """Check all values."""
        _refuse("CUDA options", problems(self))

    def settings(self) -> dict[str, str]:
        """Return the options in the format of the execution provider."""
        settings = {
            "cudnn_conv_algo_search": self.convolution_search,
            "use_tf32": str(int(self.tf32)),
            "prefer_nhwc": str(int(self.prefer_nhwc)),
            "arena_extend_strategy": self.arena_growth,
            "do_copy_in_default_stream": "1",  # a separate stream for copies has a race (onnxruntime#4829)
            "sdpa_kernel": str(self.sdpa_kernel),
        }
        return settings if self.memory_limit is None else settings | {"gpu_mem_limit": str(self.memory_limit)}


@dataclass(frozen=True)
class TensorRtOptions:
    """Options of ONNX Runtime's execution providers for TensorRT and TensorRT-RTX, which build engines at load.

    Attributes:
        limits: Sizes that the engines take; a call beyond them builds a new engine during the call.
        engine_cache: Directory for engines, with a folder for each model; if None, they are built at every load.
        zero_past: If false, the decoder runs on CUDA; for releases of TensorRT that refuse the empty past of the first
            step.
        shared_memory: If true, the engines of a graph share the memory of their activations.

    Raises:
        EngineError: Values have the wrong type; all of them are listed.
    """

    limits: ProfileLimits = field(default_factory=ProfileLimits)
    engine_cache: _Directory = None
    zero_past: bool = True
    shared_memory: bool = True

    def __post_init__(self) -> None:
        """Check all values."""
        _refuse("TensorRT options", problems(self))


@dataclass(frozen=True)
class EngineOptions:
    """Options for the engines in a bundle, as built by `speech-export --engines`.

    Attributes:
        device_id: Number of the GPU.
        flavor: TensorRT or TensorRT-RTX; if None, whichever is installed.
        cuda_graphs: See `CudaOptions.cuda_graphs`; none unless requested.

    Raises:
        EngineError: Values are unknown or out of range; all of them are listed.
    """

    device_id: _DeviceId = 0
    flavor: Flavor | None = None
    cuda_graphs: _CudaGraphs = 0

    def __post_init__(self) -> None:
        """Check all values."""
        _refuse("engine options", problems(self))


@dataclass(frozen=True)
class SessionOptions:
    """Options of ONNX Runtime.

    Attributes:
        device: Device that runs the graphs. "tensorrt" runs on CUDA the operators that TensorRT does not support,
            "tensorrt_rtx" on the CPU.
        device_id: Number of the GPU.
        intra_op_threads: Number of threads for one operator, at most 64 or four for each core. 0 stands for
            `OMP_NUM_THREADS`, else for as many as this process may use: its affinity and the quota of its container
            (cgroup versions 1 and 2) count, and otherwise all physical cores. A decoder smaller than 2 MiB takes one
            thread, which is faster.
        inter_op_threads: Number of operators that run at a time. More than 1 selects ONNX Runtime's parallel mode,
            which has no memory pattern.
        cuda: Options of CUDA, if `device` uses it.
        tensorrt: Options of TensorRT and TensorRT-RTX, if `device` uses them.
        providers: Execution providers in order of preference, with their options, in place of those of `device`:
            `(("CUDAExecutionProvider", {"cudnn_conv_algo_search": "EXHAUSTIVE"}),)`. `device` still decides where
            tensors are kept. The CPU is always added at the end.
        cpu_memory_arena: If true, freed memory is kept for the next run of any graph. Without it the process is smaller
            and slower.
        memory_pattern: If true, the memory of a run is planned from earlier runs with the same input shapes. Clips
            differ in length: 10 s at the reference shape take 10 % more memory and the same time. A step that writes
            into its cache in place always uses it, since its shapes never change: 3 % of the time of a small step.
        graph_optimization: Level of ONNX Runtime's graph optimisation at load; see its `GraphOptimizationLevel`.
        optimized_model_cache: Directory for the optimised graphs, for faster loading; see
            `backends.onnxruntime.optimized_graphs`. None for no cache.
        profile: Directory for profiles of all runs, one JSON file for each graph, in the format of Perfetto. ONNX
            Runtime writes them when the model is released. A recorded step is one entry; set `cuda.cuda_graphs` to 0 to
            see its operators. None for no profiles.
        log_severity: Lowest severity of the messages that ONNX Runtime writes to stderr. Errors of a run are raised;
            they are written there too from "warning" on.

    Raises:
        EngineError: Values are unknown, out of range or contradict each other; all of them are listed.
    """

    device: Device = "cpu"
    device_id: _DeviceId = 0
    intra_op_threads: Threads = 0
    inter_op_threads: Annotated[
        int,
        Rule(lambda count: 1 <= count <= MOST_THREADS, f"1 (one operator after the other) to {MOST_THREADS}"),
    ] = 1
    cuda: CudaOptions = field(default_factory=CudaOptions)
    tensorrt: TensorRtOptions = field(default_factory=TensorRtOptions)
    providers: Annotated[
        tuple[Provider, ...],
        Rule(lambda _: True, f"a tuple of pairs of name and options, (({CUDA!r}, {{}}),) for example"),
    ] = ()
    cpu_memory_arena: bool = True
    memory_pattern: bool = False
    graph_optimization: GraphOptimization = "all"
    optimized_model_cache: _Directory = None
    profile: _Directory = None
    log_severity: LogSeverity = "error"

    def __post_init__(self) -> None:
        """Check all values, then all pairs of values that contradict each other."""
        _refuse("session options", problems(self) or list(_contradictions(self)))

    @property
    def memory(self) -> Literal["cpu", "cuda"]:
        """Memory that holds the tensors, as `OrtValue` names it."""
        return "cpu" if self.device == "cpu" else "cuda"

    @property
    def execution_providers(self) -> list[tuple[str, dict[str, str]]]:
        """Argument `providers` of `InferenceSession`, without the options that depend on the graph.

        The number of the first GPU, the providers' default, is left out: with a number, ONNX Runtime 1.26 and later
        look for a plugin first, and write a warning for each session if there is none.
        """
        known = {CUDA: self.cuda.settings()}
        given: tuple[Provider, ...] = self.providers or tuple(
            (name, known.get(name, {})) for name in _PROVIDERS[self.device]
        )
        return [
            (
                name,
                ({"device_id": str(self.device_id)} if name in _NVIDIA and self.device_id else {})
                | {option: str(value) for option, value in options.items()},
            )
            for name, options in given
        ]


Options = SessionOptions | EngineOptions


def options_for(device: str | int | None, options: Options | None = None) -> Options:
    """Return the options for `device`.

    Args:
        device: "cpu", "cuda", "cuda:1" for the second GPU, "tensorrt", "tensorrt_rtx" or "engines"; or a number, as
            pipelines of transformers take it: 1 for the second GPU, -1 for the CPU. None if `options` are given.
        options: Options to use as they are; None for the defaults.

    Raises:
        EngineError: The device is unknown, or both arguments are given.
    """
    if device is None:
        return options or SessionOptions()
    if options is not None:
        raise EngineError(f"device is {device!r}, and options are given too; set the device in the options")
    if isinstance(device, int) and not isinstance(device, bool):
        device = "cpu" if device == -1 else f"cuda:{device}"
    device = str(device)  # of torch.device, for example
    name, colon, number = device.partition(":")
    if name not in DEVICES or (colon and not number.isdecimal()):
        raise EngineError(
            f"unknown device {device!r}; give one of {', '.join(DEVICES)}, and a GPU's number after a colon: cuda:1"
        )
    if name == ENGINES:
        return EngineOptions(device_id=int(number or 0))
    return SessionOptions(device=name, device_id=int(number or 0))  # type: ignore[arg-type]  # checked above


def with_cuda_graphs(options: Options, cuda_graphs: int | None) -> Options:
    """Return the options with another number of CUDA graphs, if one is given; see `CudaOptions.cuda_graphs`.

    Raises:
        EngineError: The number is negative, or the device records no CUDA graphs.
    """
    if cuda_graphs is None:
        return options
    if isinstance(options, SessionOptions):
        return replace(options, cuda=replace(options.cuda, cuda_graphs=cuda_graphs))
    return replace(options, cuda_graphs=cuda_graphs)


def _refuse(options: str, found: list[str]) -> None:
    if found:
        raise EngineError(f"{options}: {'; '.join(found)}")


def _contradictions(options: SessionOptions) -> Iterator[str]:
    device, names = options.device, [name for name, _ in options.providers]
    if device == "cpu" and options.device_id:
        yield f"device_id is {options.device_id}, and device 'cpu' has no number; leave it out, or set device='cuda'"
    if device != "cpu" and options.inter_op_threads > 1:
        yield (
            f"inter_op_threads is {options.inter_op_threads}, and device {device!r} runs one operator after "
            "the other; set it to 1"
        )
    if device == "cpu" and (on_gpu := [name for name in names if name in _NVIDIA]):
        other = next(device for device, uses in _PROVIDERS.items() if uses[0] == on_gpu[0])
        yield f"providers has {on_gpu[0]}, and device is 'cpu'; set device={other!r}, tensors then stay on the GPU"
    if TENSORRT_RTX in names and (others := [name for name in names if name not in (TENSORRT_RTX, CPU)]):
        yield f"providers has {TENSORRT_RTX}, a plugin, beside {others[0]}; it runs with the CPU only"
    if device != "cpu" and names and names[0] != (first := _PROVIDERS[device][0]):
        yield f"device is {device!r}, and providers begins with {names[0]}; put {first} first"
    uses = names or _PROVIDERS[device]
    other_cuda = replace(options.cuda, cuda_graphs=None)  # which have an error of their own, below
    if (options.cuda if options.providers else other_cuda) != CudaOptions() and (options.providers or CUDA not in uses):
        yield f"cuda is set, and {_why_unused(options)}"
    if options.tensorrt != TensorRtOptions() and (options.providers or not {TENSORRT, TENSORRT_RTX} & set(uses)):
        yield f"tensorrt is set, and {_why_unused(options)}"
    if not options.tensorrt.zero_past and device == "tensorrt_rtx":
        yield (
            "tensorrt.zero_past is False, and device 'tensorrt_rtx' has no CUDA provider for the decoder; leave it "
            "out, or set device='tensorrt'"
        )
    if options.cuda.cuda_graphs and device != "cuda":
        yield (
            f"cuda.cuda_graphs is {options.cuda.cuda_graphs}, and device {device!r} records no CUDA graphs; set "
            "device='cuda'"
        )
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"providers has {name} {names.count(name)} times; once is enough"
    for name, given in options.providers:
        if str(number := given.get("device_id", options.device_id)) != str(options.device_id):
            yield f"device_id is {options.device_id}, and {number} in the options of {name}; give one of them"
    if options.optimized_model_cache is not None and options.graph_optimization == "disabled":
        yield "optimized_model_cache is set, and graph_optimization is 'disabled': there is nothing to cache"
    if options.optimized_model_cache is not None and device in ("tensorrt", "tensorrt_rtx"):
        yield (
            f"optimized_model_cache is set, and device is {device!r}, whose graphs cannot be written; cache "
            "its engines instead: tensorrt=TensorRtOptions(engine_cache=…)"
        )


def _why_unused(options: SessionOptions) -> str:
    if options.providers:
        return "providers has options of its own; give one of them"
    return f"device {options.device!r} does not use it; leave it out"
