"""How ONNX Runtime runs the graphs: one frozen dataclass, validated when it is made."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ...errors import EngineError
from .gpu_options import CudaOptions, TensorRtOptions

Device = Literal["cpu", "cuda", "tensorrt", "tensorrt_rtx"]
GraphOptimization = Literal["disabled", "basic", "extended", "all"]
LogSeverity = Literal["verbose", "info", "warning", "error", "fatal"]
Provider = tuple[str, Mapping[str, object]]
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
_FIRST = {"cuda": CUDA, "tensorrt": TENSORRT, "tensorrt_rtx": TENSORRT_RTX}
"""Which provider must come first where a device on a GPU has its providers spelled out."""

_CHOICES = {
    "device": get_args(Device),
    "graph_optimization": get_args(GraphOptimization),
    "log_severity": get_args(LogSeverity),
}
_LEAST = {
    "device_id": (0, "the first GPU"),
    "intra_op_threads": (0, "all cores"),
    "inter_op_threads": (1, "one operator after the other"),
}
_THREADS = {"intra_op_threads": "--threads", "inter_op_threads": "operators at a time"}
_SWITCHES = ("cpu_memory_arena", "memory_pattern")


def most_threads() -> int:
    """Threads that are let be: each waits for work by spinning, and far more of them than processors never end."""
    return max(64, 4 * (os.cpu_count() or 1))


@dataclass(frozen=True)
class SessionOptions:
    """How ONNX Runtime runs the graphs.

    Attributes:
        device: where the graphs run; "tensorrt" leaves to CUDA what TensorRT does not take, "tensorrt_rtx" to the CPU.
        device_id: which GPU.
        intra_op_threads: threads of one operator; 0 leaves the choice to ONNX Runtime (all cores). A decoder of less
            than 2 MiB takes one: it is faster alone. At most four for each processor, or 64.
        inter_op_threads: operators that run at a time; above 1 in ONNX Runtime's parallel mode, which has no memory
            pattern.
        cuda: options of CUDA, where `device` uses it.
        tensorrt: options of TensorRT and TensorRT-RTX, where `device` uses them.
        providers: execution providers in order of preference, with their options, instead of those of `device`:
            `(("CUDAExecutionProvider", {"cudnn_conv_algo_search": "EXHAUSTIVE"}),)`. `device` still says where tensors
            are kept. The CPU always comes last.
        cpu_memory_arena: keep freed memory for the next run, of whichever graph; without it the process stays smaller
            and is slower.
        memory_pattern: plan the memory of a run by those before it with inputs of the same shapes. Clips are of all
            lengths: 10 s of the reference shape take 10 % more memory with it, and as long. A step that writes into its
            cache in place is planned so in any case, for its shapes stay the same: 3 % of a small one.
        graph_optimization: what ONNX Runtime fuses and folds when it loads a graph, as in its
            `GraphOptimizationLevel`.
        optimized_model_cache: a directory for graphs as they are after that optimisation, for faster loading; see
            `engines.optimized_graphs`.
        log_severity: what ONNX Runtime itself writes to stderr: this, and what is worse.

    Raises:
        EngineError: a value that is unknown, out of range, or contradicts another; all of them are listed.
    """

    device: Device = "cpu"
    device_id: int = 0
    intra_op_threads: int = 0
    inter_op_threads: int = 1
    cuda: CudaOptions = field(default_factory=CudaOptions)
    tensorrt: TensorRtOptions = field(default_factory=TensorRtOptions)
    providers: tuple[Provider, ...] = ()
    cpu_memory_arena: bool = True
    memory_pattern: bool = False
    graph_optimization: GraphOptimization = "all"
    optimized_model_cache: str | Path | None = None
    log_severity: LogSeverity = "error"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        problems = list(_wrong_values(self)) or list(_contradictions(self))
        if problems:
            raise EngineError(f"session options: {'; '.join(problems)}")

    @property
    def memory(self) -> Literal["cpu", "cuda"]:
        """Where tensors are kept, as `OrtValue` names it."""
        return "cpu" if self.device == "cpu" else "cuda"

    @property
    def execution_providers(self) -> list[tuple[str, dict[str, str]]]:
        """What `InferenceSession` takes as `providers`, without what depends on the graph."""
        known = {CUDA: self.cuda.settings()}
        given: tuple[Provider, ...] = self.providers or tuple(
            (name, known.get(name, {})) for name in _PROVIDERS[self.device]
        )
        return [
            (
                name,
                ({"device_id": str(self.device_id)} if name in _NVIDIA else {})
                | {option: str(value) for option, value in options.items()},
            )
            for name, options in given
        ]


def _wrong_values(options: SessionOptions) -> Iterator[str]:
    for name, choices in _CHOICES.items():
        if (value := getattr(options, name)) not in choices:
            yield f"unknown {name} {value!r}; known are {', '.join(choices)}"
    for name, (least, meaning) in _LEAST.items():
        value = getattr(options, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            yield f"{name} is {value!r}; give {least} ({meaning}) or more"
        elif name in _THREADS and value > (most := most_threads()):
            yield f"{name} is {value} ({_THREADS[name]}), more than this machine can make use of; give {most} or less"
    for name in _SWITCHES:
        if not isinstance(value := getattr(options, name), bool):
            yield f"{name} is {value!r}; give True or False"
    if not isinstance(options.optimized_model_cache, (str, Path, type(None))) or options.optimized_model_cache == "":
        yield f"optimized_model_cache is {options.optimized_model_cache!r}; give a directory, or None"
    if not isinstance(options.providers, tuple) or not all(map(_is_provider, options.providers)):
        yield (
            f"providers is {options.providers!r}; give a tuple of pairs of name and options, "
            f"(({CUDA!r}, {{}}),) for example"
        )


def _is_provider(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    name, options = value
    return isinstance(name, str) and isinstance(options, Mapping) and all(isinstance(key, str) for key in options)


def _contradictions(options: SessionOptions) -> Iterator[str]:
    names = [name for name, _ in options.providers]
    if options.device == "cpu" and options.device_id:
        yield f"device_id is {options.device_id}, and device 'cpu' has no number; leave it out, or set device='cuda'"
    if options.device != "cpu" and options.inter_op_threads > 1:
        yield (
            f"inter_op_threads is {options.inter_op_threads}, and device {options.device!r} runs one operator after "
            "the other; set it to 1"
        )
    if options.device == "cpu" and (on_gpu := [name for name in names if name in _NVIDIA]):
        device = next(device for device, first in _FIRST.items() if first == on_gpu[0])
        yield f"providers has {on_gpu[0]}, and device is 'cpu'; set device={device!r}, tensors then stay on the GPU"
    if names and names[0] != (first := _FIRST.get(options.device, names[0])):
        yield f"device is {options.device!r}, and providers begins with {names[0]}; put {first} first"
    uses = names or _PROVIDERS[options.device]
    if options.cuda != CudaOptions() and (options.providers or CUDA not in uses):
        yield f"cuda is set, and {_why_unused(options)}"
    if options.tensorrt != TensorRtOptions() and (options.providers or not {TENSORRT, TENSORRT_RTX} & set(uses)):
        yield f"tensorrt is set, and {_why_unused(options)}"
    if not options.tensorrt.zero_past and options.device == "tensorrt_rtx":
        yield "tensorrt.zero_past is False, and device is 'tensorrt_rtx', which has no CUDA beside it for the decoder"
    if options.cuda.cuda_graphs and options.device != "cuda":
        yield (
            f"cuda.cuda_graphs is {options.cuda.cuda_graphs}, and device is {options.device!r}, which runs steps in "
            "other ways than CUDA's; set device='cuda'"
        )
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"providers has {name} {names.count(name)} times; once is enough"
    for name, given in options.providers:
        if str(other := given.get("device_id", options.device_id)) != str(options.device_id):
            yield f"device_id is {options.device_id}, and {other} in the options of {name}; give one of them"
    if options.optimized_model_cache is not None:
        yield from _cache_contradictions(options)


def _why_unused(options: SessionOptions) -> str:
    if options.providers:
        return "providers has options of its own; give one of them"
    return f"device {options.device!r} does not use it; leave it out"


def _cache_contradictions(options: SessionOptions) -> Iterator[str]:
    if options.graph_optimization == "disabled":
        yield "optimized_model_cache is set, and graph_optimization is 'disabled': there is nothing to cache"
    if options.device in ("tensorrt", "tensorrt_rtx"):
        yield (
            f"optimized_model_cache is set, and device is {options.device!r}, whose graphs cannot be written; cache "
            "its engines instead: tensorrt=TensorRtOptions(engine_cache=…)"
        )
