"""Measure one case on one bundle, in this process."""

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backends.base import Backend, Prepared, Value
from ..backends.cuda.calls import Cuda
from ..backends.forwarding import ForwardingBackend
from ..backends.load import load_backend
from ..backends.onnxruntime.providers import import_onnxruntime
from ..backends.options import Options, SessionOptions, options_for
from ..backends.tensorrt.library import import_tensorrt
from ..bundle.graph_io import DECODER_INIT, DECODER_WITH_PAST, ENCODER
from ..bundle.loading import Bundle
from ..bundle.manifest import GENERATION_CONFIG
from ..generation.config import GenerationConfig
from ..generation.generator import SpeechGenerator
from ..system import peak_rss_bytes
from .audio import BenchAudio
from .options import BenchOptions, Case, backend_options


@dataclass(frozen=True)
class Spread:
    """Percentiles of times, in seconds. With few times, p90 and p99 are close to the longest.

    Attributes:
        p50: Median.
        p90: Time that nine of ten do not exceed.
        p99: Time that 99 of 100 do not exceed.
        count: Number of times.
    """

    p50: float
    p90: float
    p99: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """Compute the percentiles of at least one time, with linear interpolation."""
        p50, p90, p99 = np.percentile(np.asarray(seconds, dtype=np.float64), (50, 90, 99))
        return cls(float(p50), float(p90), float(p99), len(seconds))


@dataclass(frozen=True)
class Measurement:
    """Costs of a case. Times are those of the whole batch.

    Attributes:
        bundle: Directory of the bundle.
        precision: Precision of the bundle.
        case: The case that was measured.
        size: Size of the bundle on disk, bytes.
        check_seconds: Seconds for comparing the SHA-256 of all files.
        load_seconds: Seconds for the rest of `from_pretrained`, above all for making the sessions.
        encoder: Time of one run of the encoder.
        decoder_init: Time of one run of `decoder_init`, which makes the cross-attention cache.
        first_token: Time from the clips to the scores of the first token: features, encoder, init and first step.
        per_token: Time from the start of a step to the start of the next one, the search between them included; None
            if there is one token only.
        per_token_at: Seconds of the step after the first token, the one after the second, …: medians over the runs.
        utterance: Time from the clips to token ids.
        throughput: Seconds of audio per second, by the median of `utterance`.
        peak_rss_bytes: Largest memory of the process, interpreter and libraries included.
        gpu_bytes: Decrease of the GPU's free memory from before the bundle was loaded until the end, whoever took it,
            without CUDA's own memory. None on the CPU and without cuda-python.
    """

    bundle: str
    precision: str
    case: Case
    size: int
    check_seconds: float
    load_seconds: float
    encoder: Spread
    decoder_init: Spread
    first_token: Spread
    per_token: Spread | None
    per_token_at: tuple[float, ...]
    utterance: Spread
    throughput: float
    peak_rss_bytes: int
    gpu_bytes: int | None = None


class Run(NamedTuple):
    """One run of `graph`; `begin` and `end` are in seconds of `time.perf_counter`."""

    graph: str
    begin: float
    end: float


class TimedBackend(ForwardingBackend):
    """A backend that waits for every run and notes when it began and ended."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.runs: list[Run] = []

    def prepare(
        self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str], into: Mapping[str, Value]
    ) -> Prepared:
        """See `Backend.prepare`."""
        prepared, synchronize = super().prepare(graph, inputs, outputs, into), self.backend.synchronize

        def run() -> dict[str, Value]:
            begin = time.perf_counter()
            results = prepared()
            synchronize()
            self.runs.append(Run(graph, begin, time.perf_counter()))
            return results

        return run


@dataclass(frozen=True)
class _Utterance:
    """Start and end of a batch and the runs between them, in seconds of `time.perf_counter`."""

    begin: float
    runs: list[Run]
    end: float

    def of(self, graph: str) -> list[Run]:
        return [run for run in self.runs if run.graph == graph]

    @property
    def steps(self) -> list[float]:
        """Seconds of each token after the first; the last step ends with the search."""
        begins = [run.begin for run in self.of(DECODER_WITH_PAST)]
        return [end - begin for begin, end in pairwise([*begins, self.end])][1:]


def measure(directory: str | Path, case: Case, options: BenchOptions) -> Measurement:
    """Load the bundle, and run `case` as often as `options` allow.

    Raises:
        SpeechError: The bundle cannot be loaded, or the case fails.
    """
    import_libraries(options.device)
    gpu = gpu_of(options.device)
    free_before = 0 if gpu is None else gpu.free_memory
    begin = time.perf_counter()
    bundle = Bundle.open(directory)
    checked = time.perf_counter()
    backend, generator = load(bundle, backend_options(options.device, case.threads, options.cuda_graphs))
    loaded = time.perf_counter()
    audio = BenchAudio(bundle, options.audio)
    utterances = list(_utterances(generator, backend, audio, case, options))
    total = Spread.of([utterance.end - utterance.begin for utterance in utterances])
    steps = [utterance.steps for utterance in utterances]
    return Measurement(
        bundle=str(directory),
        precision=bundle.manifest.precision,
        case=case,
        size=bundle.size,
        check_seconds=checked - begin,
        load_seconds=loaded - checked,
        encoder=Spread.of([_seconds(utterance.of(ENCODER)) for utterance in utterances]),
        decoder_init=Spread.of([_seconds(utterance.of(DECODER_INIT)) for utterance in utterances]),
        first_token=Spread.of([utterance.of(DECODER_WITH_PAST)[0].end - utterance.begin for utterance in utterances]),
        per_token=Spread.of([seconds for run in steps for seconds in run]) if steps[0] else None,
        per_token_at=tuple(np.median(steps, axis=0).tolist()),
        utterance=total,
        throughput=case.batch * case.seconds / total.p50,
        peak_rss_bytes=peak_rss_bytes(),
        gpu_bytes=None if gpu is None else free_before - gpu.free_memory,
    )


def import_libraries(device: str) -> None:
    """Import the library that runs the graphs on `device`, so that its import does not count as loading the bundle.

    Raises:
        EngineError: The library, or its provider for the device, is missing.
    """
    options = options_for(device)
    if isinstance(options, SessionOptions):
        import_onnxruntime(options)
    else:
        import_tensorrt(options.flavor)


def gpu_of(device: str) -> Cuda | None:
    """Return the GPU that `device` names; None for the CPU, and if cuda-python is not installed.

    Raises:
        EngineError: There is no such GPU.
    """
    options = options_for(device)
    on_cpu = isinstance(options, SessionOptions) and options.device == "cpu"
    if on_cpu or importlib.util.find_spec("cuda") is None:
        return None
    return Cuda(options.device_id)


def load(bundle: Bundle, options: Options) -> tuple[TimedBackend, SpeechGenerator]:
    """Load the model of `bundle` with a backend that measures times."""
    backend, manifest = load_backend(bundle, options, check_hashes=False)
    timed = TimedBackend(backend)
    config = GenerationConfig.from_file(bundle.path(GENERATION_CONFIG))
    return timed, SpeechGenerator(timed, manifest, config, None)


def fixed_length(case: Case) -> dict[str, Any]:
    """Return settings of `generate` for exactly the tokens of `case`; other settings are those of the bundle."""
    return {
        "num_beams": case.beams,
        "num_return_sequences": 1,
        "min_new_tokens": case.tokens,
        "max_new_tokens": case.tokens,
        "do_sample": False,
        "max_time": None,
        "stop_strings": None,
    }


def _utterances(
    generator: SpeechGenerator, backend: TimedBackend, audio: BenchAudio, case: Case, options: BenchOptions
) -> Iterator[_Utterance]:
    clips, settings = audio.batch(case.seconds, case.batch), fixed_length(case)
    language = generator.manifest.example_language
    start, count = time.perf_counter(), 0
    while count <= options.least or (count <= options.repeats and time.perf_counter() - start < options.budget):
        backend.runs.clear()
        begin = time.perf_counter()
        inputs, mask = audio.model_input(clips)
        generator.generate(inputs, mask, language=language, **settings)
        done = _Utterance(begin, list(backend.runs), time.perf_counter())
        if count:  # the first run only warms up caches and memory
            yield done
        count += 1


def _seconds(runs: list[Run]) -> float:
    return sum(run.end - run.begin for run in runs)
