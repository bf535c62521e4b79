"""Reports of measurements: tables for people, JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..system import MIB, Machine
from .measure import Measurement, Spread

_COLUMNS = (
    *("bundle", "audio, s", "batch", "beams", "tokens", "threads"),
    *("encoder", "cross-attention", "first token", "per token", "utterance"),
    *("× real time", "peak MiB"),
)

_LEGEND = (
    "Read the utterance column first: it is what a user waits for. It is the sum of encoder, cross-attention (its keys "
    "and values, computed once for each utterance) and per token × tokens, plus features and the search. First token "
    "is from the audio to the first token, so it contains the encoder. Times are milliseconds for the whole batch, as "
    "p50 / p90 / p99 of the runs; × real time is seconds of audio / seconds of utterance."
)
_SMALL = 32 * MIB
_SMALL_INT8 = (
    "{bundle} is so small that starting an operator takes longer than its product: int8 saves memory here, and hardly "
    "any time. Measure a model of the size that you will deploy."
)


def as_json(measurements: Sequence[Measurement], machine: Machine) -> dict[str, Any]:
    """Return all measurements and the machine: times in seconds, sizes in bytes."""
    return {"machine": asdict(machine), "measurements": [asdict(measurement) for measurement in measurements]}


def as_markdown(measurements: Sequence[Measurement], machine: Machine) -> str:
    """Return tables of the cases and of the bundles: times in ms, as p50 / p90 / p99."""
    lines = [
        machine.describe(),
        "",
        *_answers(measurements),
        "",
        _LEGEND,
        "",
        *table(
            (*_COLUMNS, "GPU MiB") if machine.gpu else _COLUMNS,
            [[*_case(measurement), *(_gpu(measurement) if machine.gpu else [])] for measurement in measurements],
        ),
        "",
        *table(("bundle", "precision", "MiB on disk", "load, s", "checking hashes, s"), _bundles(measurements)),
    ]
    return "\n".join(lines)


def _answers(measurements: Sequence[Measurement]) -> list[str]:
    """Return a sentence for each bundle about its first case, which is the reference."""
    first = {measurement.bundle: measurement for measurement in reversed(measurements)}
    lines = []
    for bundle in dict.fromkeys(measurement.bundle for measurement in measurements):
        measured, name = first[bundle], Path(bundle).name
        case, seconds = measured.case, measured.utterance.p50
        clips = f"{case.seconds:g} s of audio" if case.batch == 1 else f"{case.batch} clips of {case.seconds:g} s"
        lines.append(
            f"**{name}: {clips} take {seconds:.2g} s: {measured.throughput:.3g} × real time**; "
            f"{min(measured.encoder.p50 / seconds, 1):.0%} of that is the encoder."
        )
        if measured.precision in ("int8", "int4") and measured.size < _SMALL:
            lines.append(_SMALL_INT8.format(bundle=name))
    return lines


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _case(measurement: Measurement) -> list[str]:
    case = measurement.case
    return [
        *(Path(measurement.bundle).name, f"{case.seconds:g}", f"{case.batch}", f"{case.beams}", f"{case.tokens}"),
        str(case.threads or "all"),
        *(_milliseconds(part) for part in (measurement.encoder, measurement.decoder_init, measurement.first_token)),
        *(_milliseconds(part) for part in (measurement.per_token, measurement.utterance)),
        *(f"{measurement.throughput:.1f}", f"{measurement.peak_rss_bytes / MIB:,.0f}"),
    ]


def _gpu(measurement: Measurement) -> list[str]:
    return ["–" if measurement.gpu_bytes is None else f"{measurement.gpu_bytes / MIB:,.0f}"]


def _milliseconds(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return " / ".join(
        f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:,.0f}"
        for seconds in (spread.p50, spread.p90, spread.p99)
    )


def _bundles(measurements: Sequence[Measurement]) -> list[list[str]]:
    """Return the size and load times of each bundle: medians over the processes that loaded it."""
    rows = []
    for bundle in dict.fromkeys(measurement.bundle for measurement in measurements):
        own = [measurement for measurement in measurements if measurement.bundle == bundle]
        load = Spread.of([measurement.load_seconds for measurement in own])
        check = Spread.of([measurement.check_seconds for measurement in own])
        size = f"{own[0].size / MIB:,.1f}"
        rows.append([bundle, own[0].precision, size, f"{load.p50:.2f}", f"{check.p50:.2f}"])
    return rows
