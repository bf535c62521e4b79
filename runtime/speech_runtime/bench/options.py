"""Options of `speech-bench`, and the cases that follow from them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Annotated

from ..backends.options import MOST_THREADS, Options, SessionOptions, options_for, with_cuda_graphs
from ..dataclass_json import Rule, at_least, between, problems
from ..errors import BenchError, EngineError

_AT_LEAST_ONE = Rule(lambda values: len(values) > 0, "at least one value")
_Counts = Annotated[tuple[Annotated[int, at_least(1)], ...], _AT_LEAST_ONE]


@dataclass(frozen=True)
class Case:
    """One point of the measurement.

    Attributes:
        seconds: Seconds of audio in each utterance.
        batch: Number of utterances at a time.
        beams: Number of beams.
        tokens: Number of new tokens of each utterance, neither more nor fewer.
        threads: Number of threads for one operator; 0 for all cores.
    """

    seconds: float
    batch: int = 1
    beams: int = 5
    tokens: int = 40
    threads: int = 0

    def __str__(self) -> str:
        """Describe the case in words."""
        threads = f"{self.threads} threads" if self.threads else "all cores"
        return f"{self.seconds:g} s × {self.batch}, {self.beams} beams, {self.tokens} tokens, {threads}"


@dataclass(frozen=True)
class BenchOptions:
    """Options of `speech-bench`.

    The first of the `seconds`, `batch`, `beams`, `tokens` and `threads` form the reference; each of them is varied
    while the others keep their reference value.

    Attributes:
        seconds: Lengths of audio, seconds.
        batch: Numbers of utterances at a time.
        beams: Numbers of beams.
        tokens: Numbers of new tokens of each utterance; fixed, so that models with random weights compare.
        threads: Numbers of threads for one operator; 0 for all cores.
        repeats: Largest number of runs of each case, after a first one that is not counted.
        budget: Seconds after which a case gets no more than its `least` runs.
        least: Smallest number of runs of each case.
        device: Device that runs the graphs, as in `from_pretrained`.
        audio: Path of a file to transcribe in place of noise; its length replaces `seconds`.
        cuda_graphs: Number of sizes whose steps are recorded; see `CudaOptions.cuda_graphs`. None for the default.

    Raises:
        BenchError: Values are out of range; all of them are listed.
    """

    seconds: Annotated[
        tuple[Annotated[float, Rule(lambda seconds: 0 < seconds < inf, "seconds above 0")], ...], _AT_LEAST_ONE
    ] = (10.0, 1.0, 30.0, 60.0)
    batch: _Counts = (1, 4, 16)
    beams: _Counts = (5, 1, 10)
    tokens: _Counts = (40,)
    threads: Annotated[tuple[Annotated[int, between(0, MOST_THREADS, "all cores")], ...], _AT_LEAST_ONE] = (0, 1)
    repeats: Annotated[int, at_least(1)] = 20
    budget: Annotated[float, Rule(lambda seconds: seconds >= 0, "0 seconds or more")] = 20.0
    least: Annotated[int, at_least(1)] = 3
    device: str = "cpu"
    audio: str | None = None
    cuda_graphs: int | None = None

    def __post_init__(self) -> None:
        """Check all values, and those that depend on each other."""
        if found := [*problems(self), *_contradictions(self)]:
            raise BenchError(f"benchmark options: {'; '.join(found)}")

    @property
    def cases(self) -> list[Case]:
        """The reference, then each varied value with the others at the reference; no case is listed twice."""
        reference = Case(self.seconds[0], self.batch[0], self.beams[0], self.tokens[0], self.threads[0])
        axes = ("seconds", "beams", "batch", "tokens", "threads")
        found = [reference, *(replace(reference, **{axis: value}) for axis in axes for value in getattr(self, axis))]
        return list(dict.fromkeys(found))


def backend_options(device: str, threads: int, cuda_graphs: int | None = None) -> Options:
    """Return the options of the backend that runs a case.

    Raises:
        EngineError: The device is unknown, or records no CUDA graphs although some are requested.
    """
    options = with_cuda_graphs(options_for(device), cuda_graphs)
    return replace(options, intra_op_threads=threads) if isinstance(options, SessionOptions) else options


def _contradictions(options: BenchOptions) -> Iterator[str]:
    if options.least > options.repeats:
        yield f"least is {options.least}, more than repeats ({options.repeats})"
    try:
        has_threads = isinstance(backend_options(options.device, 0, options.cuda_graphs), SessionOptions)
    except EngineError as error:
        yield str(error)
    else:
        if not has_threads and any(options.threads):
            yield f"threads are for ONNX Runtime, and device {options.device!r} runs without it; give 0"


QUICK = BenchOptions(
    seconds=(10.0, 1.0), batch=(1, 4), beams=(5, 1), tokens=(20,), threads=(0,), repeats=5, budget=5.0, least=2
)
"""Options of `--quick`: the same measurement in a minute or two."""
