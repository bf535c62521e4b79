"""Run all cases on all bundles; every case is checked before the first one runs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..backends.cuda.calls import Cuda
from ..backends.cuda.recorded_sizes import recorded_sizes
from ..backends.load import check_target
from ..backends.options import EngineOptions, options_for
from ..backends.tensorrt.engine_sets import choose_engines
from ..backends.tensorrt.library import import_tensorrt
from ..bundle.loading import Bundle
from ..bundle.manifest import GENERATION_CONFIG
from ..bundle.profile_limits import ProfileLimits
from ..errors import BenchError, SpeechError
from ..generation.config import GenerationConfig
from ..input_checks import check_lengths, check_memory
from ..system import available_memory
from .audio import BenchAudio
from .measure import Measurement, fixed_length, import_libraries
from .options import BenchOptions, Case
from .worker import Order, measure_apart

_LIMITED_BY_ENGINES = ("seconds", "batch", "beams", "tokens")


def plan(bundles: Sequence[str | Path], options: BenchOptions) -> list[Order]:
    """List the measurements. Within each case the bundles take turns, so that all meet the machine in the same state.

    Raises:
        BenchError: Cases cannot be run; all of them are listed.
        BundleError: A bundle is missing or damaged.
        EngineError: A library, the device or engines for it are missing.
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
    """Measure one order after the other, each in its own process; `on_order` is called before each.

    Raises:
        BenchError: A measurement failed.
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
    limits = _engine_limits(bundle, options.device)
    known: set[str] = set()
    for case in options.cases:
        try:
            recorded_sizes(bundle, options.cuda_graphs)
            _check(bundle, audio, config, case)
        except SpeechError as error:
            if str(error) not in known:  # cases often fail for the same reason, which is listed once
                yield f"{name}, {case}: {error}"
            known.add(str(error))
        if limits is not None:
            yield from (f"{name}: {problem}" for problem in _beyond(case, limits))


def _check(bundle: Bundle, audio: BenchAudio, config: GenerationConfig, case: Case) -> None:
    encoder, length = bundle.manifest.encoder, audio.input_length(case.seconds)
    check_lengths(np.array([length]), encoder, f"{case.seconds:g} s")
    check_memory(case.batch, length, encoder, f"{case.seconds:g} s")
    settings = config.updated(fixed_length(case))
    settings.start_token_ids(case.batch)
    decoder = bundle.manifest.decoder
    settings.length_range(1, decoder.max_positions)
    room = decoder.cache_length
    if room is not None and case.tokens > room:
        raise BenchError(
            f"{case.tokens} tokens do not fit the static cache of this bundle, which has room for {room}; set "
            f"max_new_tokens to {room} or less, or export the model again with a longer one: --static-cache TOKENS"
        )


def _engine_limits(bundle: Bundle, device: str) -> ProfileLimits | None:
    """Return the limits of the engines of `bundle` for this GPU; None for other devices than "engines".

    Raises:
        EngineError: There is no GPU, or no engines for it.
    """
    options = options_for(device)
    if not isinstance(options, EngineOptions):
        return None
    check_target(bundle, options)
    capability = Cuda(options.device_id).compute_capability
    return choose_engines(bundle, import_tensorrt(options.flavor), capability, check_hashes=False).limits


def _beyond(case: Case, limits: ProfileLimits) -> Iterator[str]:
    for name in _LIMITED_BY_ENGINES:
        value, (least, _, most) = getattr(case, name), getattr(limits, name)
        if not least <= value <= most:
            yield f"{name} is {value:g}, and its engines were built for {least:g} to {most:g}"
