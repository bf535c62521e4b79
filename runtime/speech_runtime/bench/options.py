"""What is to be measured: one frozen dataclass, validated when it is made, and the cases that follow from it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..backends.devices import options_for, with_cuda_graphs
from ..backends.onnxruntime.session_options import SessionOptions, most_threads
from ..errors import BenchError, EngineError

WAVEFORM_RATE, FEATURE_RATE = 16_000, 100
"""Samples and feature frames of a second, where a bundle has no feature extractor that would say it."""


@dataclass(frozen=True)
class Case:
    """One point of the measurement.

    Attributes:
        seconds: of audio in each utterance.
        batch: utterances at a time.
        beams: of the search.
        tokens: new tokens of each utterance, neither more nor fewer.
        threads: of one operator; 0 for all cores.
    """

    seconds: float
    batch: int = 1
    beams: int = 5
    tokens: int = 40
    threads: int = 0


@dataclass(frozen=True)
class BenchOptions:
    """What `speech-bench` measures.

    The first of the `seconds`, `batch`, `beams`, `tokens` and `threads` are the reference; each of them is varied
    while the others stay there.

    Attributes:
        seconds: lengths of audio.
        batch: utterances at a time.
        beams: of the search.
        tokens: new tokens of each utterance: as many in every run, so that models with random weights compare.
        threads: of one operator; 0 for all cores.
        repeats: runs of each case at most, after one that does not count.
        budget: seconds after which a case gets no more runs than its `least`.
        least: runs of each case at least.
        device: where the graphs run, as `from_pretrained` names it.
        audio: a file instead of noise; `seconds` is then its length.
        cuda_graphs: sizes whose steps are recorded; see `CudaOptions.cuda_graphs`.

    Raises:
        BenchError: a value that is out of range; all of them are listed.
    """

    seconds: tuple[float, ...] = (10.0, 1.0, 30.0, 60.0)
    batch: tuple[int, ...] = (1, 4, 16)
    beams: tuple[int, ...] = (5, 1, 10)
    tokens: tuple[int, ...] = (40,)
    threads: tuple[int, ...] = (0, 1)
    repeats: int = 20
    budget: float = 20.0
    least: int = 3
    device: str = "cpu"
    audio: str | None = None
    cuda_graphs: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if problems := list(_problems(self)):
            raise BenchError(f"benchmark options: {'; '.join(problems)}")

    @property
    def cases(self) -> list[Case]:
        """The reference, then each axis with the others at the reference; no case comes twice."""
        reference = Case(self.seconds[0], self.batch[0], self.beams[0], self.tokens[0], self.threads[0])
        axes = ("seconds", "beams", "batch", "tokens", "threads")
        found = [reference, *(replace(reference, **{axis: value}) for axis in axes for value in getattr(self, axis))]
        return list(dict.fromkeys(found))


def _problems(options: BenchOptions) -> Iterator[str]:
    for name, least in (("seconds", 0), ("batch", 1), ("beams", 1), ("tokens", 1), ("threads", 0)):
        values = getattr(options, name)
        bound = "above 0" if name == "seconds" else f"{least} or more"
        if not values:
            yield f"{name} is empty; give one value at least"
        for value in values:
            if not math.isfinite(value) or value < least or (name == "seconds" and value == 0):
                yield f"{name} has {value:g}; give {bound}"
            elif name == "threads" and value > (most := most_threads()):
                yield f"{name} has {value}, more than this machine can make use of; give {most} or less"
    for name in ("repeats", "least"):
        if getattr(options, name) < 1:
            yield f"{name} is {getattr(options, name)}; give 1 or more"
    if options.least > options.repeats:
        yield f"least is {options.least}, more than repeats ({options.repeats})"
    if not options.budget >= 0:
        yield f"budget is {options.budget:g}; give 0 seconds or more"
    try:
        has_threads = isinstance(with_cuda_graphs(options_for(options.device), options.cuda_graphs), SessionOptions)
    except EngineError as error:
        yield str(error)
    else:
        if not has_threads and any(options.threads):
            yield f"threads are of ONNX Runtime, and device {options.device!r} runs without it; give 0"


QUICK = BenchOptions(
    seconds=(10.0, 1.0), batch=(1, 4), beams=(5, 1), tokens=(20,), threads=(0,), repeats=5, budget=5.0, least=2
)
"""`--quick`: the same measurement in a minute or two."""
