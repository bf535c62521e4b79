"""Write measurements as Markdown tables."""

from collections.abc import Mapping, Sequence

import numpy as np

from compare import Comparison, Metric, Outcome
from limits import Limits
from operators import Operator
from peers.registry import BATCH, CLIP, SINGLE
from speech_runtime.bench.options import Case
from speech_runtime.bench.report import table

_GIB = 2**30
_WHOLE = 100


def reference_table(comparison: Comparison) -> list[str]:
    """Medians over the rounds, of all contenders that ran."""
    rows = [
        [
            name,
            *(_milliseconds(outcome, SINGLE, metric) for metric in ("encoder", "per_token", "utterance")),
            _throughput(outcome),
            *(_median(outcome.peak_rss_bytes, 1 / _GIB), _median(outcome.load_seconds, 1)),
        ]
        for name, outcome in comparison.items()
        if not outcome.absent
    ]
    columns = ("", "encoder, ms", "step, ms", "utterance, ms", "× real time at batch 8", "peak GiB", "load, s")
    return table(columns, rows)


def digits_table(comparison: Comparison) -> list[str]:
    """The bundled model on one of its clips."""
    rows = [
        [name, *(_milliseconds(outcome, CLIP, metric) for metric in ("encoder", "per_token", "utterance"))]
        for name, outcome in comparison.items()
        if not outcome.absent
    ]
    return table(("", "encoder, ms", "step, ms", "whole clip, ms"), rows)


def hidden_table(usual: Comparison, hidden: Comparison) -> list[str]:
    """Peers with all that the processor has, and without AMX and AVX-512: both medians."""

    def pair(name: str, metric: Metric) -> str:
        return f"{_milliseconds(usual[name], SINGLE, metric)} → {_milliseconds(hidden[name], SINGLE, metric)}"

    rows = [
        [name, *(pair(name, metric) for metric in ("encoder", "per_token", "utterance"))]
        for name, outcome in hidden.items()
        if name in usual and not outcome.absent
    ]
    return table(("", "encoder, ms", "step, ms", "utterance, ms"), rows)


def operators_table(columns: Mapping[str, Sequence[Operator]]) -> list[str]:
    """Return milliseconds and counts of operators side by side; each takes at least 1 % of one column.

    Args:
        columns: Profiles by the title of their column; rows are in the order of the last one.
    """
    totals = {name: sum(each.milliseconds for each in found) for name, found in columns.items()}
    by_kind = {name: {each.kind: each for each in found} for name, found in columns.items()}
    kinds = dict.fromkeys(each.kind for found in reversed([*columns.values()]) for each in found)

    def cell(name: str, kind: str) -> str:
        each = by_kind[name].get(kind)
        return f"{each.milliseconds:.2f} ({each.count})" if each else "–"

    def matters(kind: str) -> bool:
        return any(
            kind in found and found[kind].milliseconds >= totals[name] / _WHOLE for name, found in by_kind.items()
        )

    rows = [[kind, *(cell(name, kind) for name in columns)] for kind in kinds if matters(kind)]
    rows.append(["all", *(f"{total:.2f}" for total in totals.values())])
    return table(("", *(f"{name}, ms (operators)" for name in columns)), rows)


def short(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= _WHOLE else f"{value:.3g}"


def limits_line(limits: Limits) -> str:
    """The machine's rates in words."""
    return (
        f"With {limits.threads} threads this machine reads {limits.read / 1e9:.1f} GB/s from memory and multiplies "
        f"matrices at {limits.int8 / 1e9:,.0f} (int8) and {limits.float32 / 1e9:,.0f} (float32) billion operations a "
        "second in ONNX Runtime."
    )


def _throughput(outcome: Outcome) -> str:
    times = outcome.rounds(BATCH, "utterance")
    return f"{BATCH.batch * BATCH.seconds / np.median(times):.2f}" if times else "–"


def _milliseconds(outcome: Outcome, case: Case, metric: Metric) -> str:
    return _median(outcome.rounds(case, metric), 1000)


def _median(values: Sequence[float], factor: float) -> str:
    return short(factor * float(np.median(values))) if values else "–"
