"""All cases on all bundles, checked before the first of them is run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..backends.cuda.graphs import check_recordable
from ..bundle.loading import Bundle
from ..bundle.manifest import GENERATION_CONFIG
from ..errors import BenchError, SpeechError
from ..generation.config import GenerationConfig
from ..generation.decoding.caches.static import check_static_length
from ..input_checks import check_lengths, check_memory
from .audio import BenchAudio
from .device import beyond, engine_limits, import_libraries
from .machine import available_memory
from .measure import Measurement, fixed_length
from .options import BenchOptions, Case
from .worker import Order, describe, measure_apart


def plan(bundles: Sequence[str | Path], options: BenchOptions) -> list[Order]:
    """What has to be measured: the bundles in turn within each case, so that they meet the machine in the same state.

    Raises:
        BenchError: cases that cannot be run; all of them are listed.
        BundleError: there is no bundle, or it is damaged.
        EngineError: a library, the device, or engines for it are missing.
    """
    import_libraries(options.device)
    opened = [Bundle.open(bundle) for bundle in bundles]
    seconds = _file_seconds(opened[0], options)
    if seconds is not None:
        options = replace(options, seconds=(seconds,))
    problems = list(dict.fromkeys(problem for bundle in opened for problem in _problems(bundle, options)))
    if problems:
        raise BenchError("; ".join(problems))
    return [Order(str(bundle.directory), case, options) for case in options.cases for bundle in opened]


def run(orders: Sequence[Order], on_order: Callable[[Order], None]) -> Iterator[Measurement]:
    """Measure one after the other, each in a process of its own; `on_order` is told of each before.

    Raises:
        BenchError: one failed.
    """
    for order in orders:
        on_order(order)
        yield measure_apart(order)


def _file_seconds(bundle: Bundle, options: BenchOptions) -> float | None:
    return None if options.audio is None else BenchAudio(bundle, options.audio).file_seconds


def _problems(bundle: Bundle, options: BenchOptions) -> Iterator[str]:
    name, available = bundle.directory, available_memory()
    if options.device == "cpu" and available is not None and bundle.size > available:
        yield (
            f"{name} has {bundle.size / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB of memory are free; "
            "end other programs, or export it at a smaller precision"
        )
    audio, config = BenchAudio(bundle, options.audio), GenerationConfig.from_file(bundle.path(GENERATION_CONFIG))
    limits = engine_limits(bundle, options.device)
    known: set[str] = set()
    for case in options.cases:
        try:
            check_recordable(bundle, options.cuda_graphs)
            _check(bundle, audio, config, case)
        except SpeechError as error:
            if str(error) not in known:  # the first case of several that fail alike stands for them
                yield f"{name}, {describe(case)}: {error}"
            known.add(str(error))
        if limits is not None:
            yield from (f"{name}: {problem}" for problem in beyond(case, limits))


def _check(bundle: Bundle, audio: BenchAudio, config: GenerationConfig, case: Case) -> None:
    encoder, length = bundle.manifest.encoder, audio.input_length(case.seconds)
    check_lengths(np.array([length]), encoder, f"{case.seconds:g} s")
    check_memory(case.batch, length, encoder, f"{case.seconds:g} s")
    settings = config.updated(fixed_length(case))
    settings.start_token_ids(case.batch)
    decoder = bundle.manifest.decoder
    _, longest = settings.length_range(1, decoder.max_positions)
    check_static_length(decoder, longest)
