"""One case on one bundle, in this process."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.devices import Options, load_backend
from ..backends.timed import Run, TimedBackend
from ..bundle.graph_io import DECODER_INIT, DECODER_WITH_PAST, ENCODER
from ..bundle.loading import Bundle
from ..bundle.manifest import GENERATION_CONFIG
from ..generation.config import GenerationConfig
from ..generation.generator import SpeechGenerator
from ..system import peak_rss_bytes
from .audio import BenchAudio
from .device import bench_options, gpu_of, import_libraries
from .options import BenchOptions, Case
from .statistics import Spread


@dataclass(frozen=True)
class Measurement:
    """What a case cost. Times are of the whole batch.

    Attributes:
        bundle: directory.
        precision: of the bundle.
        case: what was measured.
        size: of the bundle on disk, bytes.
        check_seconds: comparing the SHA-256 of all files.
        load_seconds: making the sessions, all else that `from_pretrained` does besides those comparisons.
        encoder: one run.
        decoder_init: one run: the cross-attention cache.
        first_token: from the clips until the first token can be chosen: features, encoder, init and first step.
        per_token: from the beginning of a step to the beginning of the next, the search between them included; None
            where there is one token only.
        per_token_at: seconds, median over the runs, of the first step after the first token, the second, ….
        utterance: from the clips to token ids.
        throughput: seconds of audio in a second, by the median of `utterance`.
        peak_rss_bytes: the most memory that the process took, interpreter and libraries included.
        gpu_bytes: what the GPU has less of in the end than before the bundle was loaded, whoever took it; CUDA's own
            is not in it. None on the CPU, and without cuda-python.
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


@dataclass(frozen=True)
class _Utterance:
    """When a batch began and ended, and the graphs between; seconds of `time.perf_counter`."""

    begin: float
    runs: list[Run]
    end: float

    def of(self, graph: str) -> list[Run]:
        return [run for run in self.runs if run.graph == graph]

    @property
    def steps(self) -> list[float]:
        """How long each token after the first took; the last step ends with the search."""
        begins = [run.begin for run in self.of(DECODER_WITH_PAST)]
        return [end - begin for begin, end in pairwise([*begins, self.end])][1:]


def measure(directory: str | Path, case: Case, options: BenchOptions) -> Measurement:
    """Load the bundle and run `case` until `options` has enough.

    Raises:
        SpeechError: the bundle cannot be loaded, or the case not be run.
    """
    import_libraries(options.device)
    gpu = gpu_of(options.device)
    free_before = 0 if gpu is None else gpu.free_memory
    begin = time.perf_counter()
    bundle = Bundle.open(directory)
    checked = time.perf_counter()
    backend, generator = load(bundle, bench_options(options.device, case.threads, options.cuda_graphs))
    loaded = time.perf_counter()
    audio = BenchAudio(bundle, options.audio)
    utterances = list(_utterances(generator, backend, audio, case, options))
    median = Spread.of([utterance.end - utterance.begin for utterance in utterances])
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
        utterance=median,
        throughput=case.batch * case.seconds / median.p50,
        peak_rss_bytes=peak_rss_bytes(),
        gpu_bytes=None if gpu is None else free_before - gpu.free_memory,
    )


def load(bundle: Bundle, options: Options) -> tuple[TimedBackend, SpeechGenerator]:
    """The model of `bundle`, on a backend with a clock."""
    backend, manifest = load_backend(bundle, options, check_hashes=False)
    timed = TimedBackend(backend)
    config = GenerationConfig.from_file(bundle.path(GENERATION_CONFIG))
    return timed, SpeechGenerator(timed, manifest, config, None)


def fixed_length(case: Case) -> dict[str, Any]:
    """Settings of `generate` for exactly the tokens of `case`; the rest is as in the bundle."""
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
    start, count = time.perf_counter(), 0
    while count <= options.least or (count <= options.repeats and time.perf_counter() - start < options.budget):
        backend.runs.clear()
        begin = time.perf_counter()
        inputs, mask = audio.model_input(clips)
        generator.generate(inputs, mask, **settings)
        done = _Utterance(begin, list(backend.runs), time.perf_counter())
        if count:  # the first run warms caches and memory up
            yield done
        count += 1


def _seconds(runs: list[Run]) -> float:
    return sum(run.end - run.begin for run in runs)
