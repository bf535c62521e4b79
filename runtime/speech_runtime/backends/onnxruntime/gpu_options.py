"""Options of the execution providers for NVIDIA GPUs: two frozen dataclasses. Reasons and sources: docs/gpu.md."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ...bundle.profile_limits import ProfileLimits
from ...errors import EngineError

ConvolutionSearch = Literal["HEURISTIC", "EXHAUSTIVE", "DEFAULT"]
ArenaGrowth = Literal["kNextPowerOfTwo", "kSameAsRequested"]


@dataclass(frozen=True)
class CudaOptions:
    """How the CUDA execution provider runs graphs.

    Attributes:
        convolution_search: how cuDNN's algorithms are chosen. EXHAUSTIVE times all of them again for every new length
            of audio, DEFAULT takes the first.
        tf32: round float32 products to TF32, 10 bits of mantissa: faster, and no longer equal to the CPU.
        prefer_nhwc: convolutions with the channels last.
        arena_growth: by powers of two, or by what is needed.
        memory_limit: bytes of the arena; None for what the GPU has.
        cuda_graphs: sizes (utterances, and frames of audio) whose steps are recorded as CUDA graphs and replayed, each
            with caches of its own that stay on the GPU; further sizes run as they do without. For bundles with a static
            cache; 0 records none.

    Raises:
        EngineError: a value that is unknown or out of range; all of them are listed.
    """

    convolution_search: ConvolutionSearch = "HEURISTIC"
    tf32: bool = False
    prefer_nhwc: bool = False
    arena_growth: ArenaGrowth = "kNextPowerOfTwo"
    memory_limit: int | None = None
    cuda_graphs: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        problems = [
            *_unknown("convolution_search", self.convolution_search, get_args(ConvolutionSearch)),
            *_no_switch("tf32", self.tf32),
            *_no_switch("prefer_nhwc", self.prefer_nhwc),
            *_unknown("arena_growth", self.arena_growth, get_args(ArenaGrowth)),
        ]
        limit = self.memory_limit
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit <= 0):
            problems.append(f"memory_limit is {limit!r}; give bytes, or None")
        problems += no_number_of_graphs(self.cuda_graphs)
        if problems:
            raise EngineError(f"CUDA options: {'; '.join(problems)}")

    def settings(self) -> dict[str, str]:
        """As the execution provider takes them."""
        settings = {
            "cudnn_conv_algo_search": self.convolution_search,
            "use_tf32": _switch(self.tf32),
            "prefer_nhwc": _switch(self.prefer_nhwc),
            "arena_extend_strategy": self.arena_growth,
            "do_copy_in_default_stream": "1",  # a stream of its own for copies is known to race (onnxruntime#4829)
        }
        return settings if self.memory_limit is None else settings | {"gpu_mem_limit": str(self.memory_limit)}


@dataclass(frozen=True)
class TensorRtOptions:
    """How the execution providers of TensorRT and TensorRT-RTX build engines and run them.

    Attributes:
        limits: of what the engines take; a call beyond them builds an engine anew, in the middle of the call.
        engine_cache: a directory for engines, a folder a model; without one they are built at every load.
        zero_past: whether TensorRT takes the 0 long past of the first step. Releases that do not leave the decoder to
            CUDA with False.
        shared_memory: engines of a graph share the memory of their activations.

    Raises:
        EngineError: a value that cannot be meant; all of them are listed.
    """

    limits: ProfileLimits = field(default_factory=ProfileLimits)
    engine_cache: str | Path | None = None
    zero_past: bool = True
    shared_memory: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        problems = [*_no_switch("zero_past", self.zero_past), *_no_switch("shared_memory", self.shared_memory)]
        if not isinstance(self.limits, ProfileLimits):
            problems.append(f"limits is {self.limits!r}; give ProfileLimits")
        if not isinstance(self.engine_cache, (str, Path, type(None))) or self.engine_cache == "":
            problems.append(f"engine_cache is {self.engine_cache!r}; give a directory, or None")
        if problems:
            raise EngineError(f"TensorRT options: {'; '.join(problems)}")


def no_number_of_graphs(graphs: object) -> Iterator[str]:
    """Why `graphs` is no `cuda_graphs`."""
    if not isinstance(graphs, int) or isinstance(graphs, bool) or graphs < 0:
        yield f"cuda_graphs is {graphs!r}; give a number of sizes, or 0 for no CUDA graphs"


def _unknown(name: str, value: object, known: tuple[str, ...]) -> Iterator[str]:
    if value not in known:
        yield f"unknown {name} {value!r}; known are {', '.join(known)}"


def _no_switch(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{name} is {value!r}; give True or False"


def _switch(value: bool) -> str:
    return "1" if value else "0"
