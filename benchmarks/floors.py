"""The floors: the least that the reference shape and the bundled model must reach, beside the measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compare import Comparison, Metric, Outcome, ratio
from peers.registry import (
    BATCH,
    CLIP,
    CTRANSLATE2,
    OPENVINO,
    PLAIN_FLOAT32,
    SINGLE,
    TORCH_BFLOAT16,
    TORCH_FLOAT32,
)
from speech_runtime.bench.measure import Measurement
from speech_runtime.bench.options import Case
from speech_runtime.bench.report import table

LONG_PREFIX = 200
_EDGE = 10
"""Steps at either end of a long search whose median stands for a short and a long prefix."""

NOTHING = Outcome("was not run")


@dataclass(frozen=True)
class Floor:
    """One line of the table.

    Attributes:
        name: Name of the measurement.
        bound: Number that it must reach.
        measured: None where it was not.
        at_least: If true, more is better.
        unit: Unit of both numbers.
    """

    name: str
    bound: float
    measured: float | None
    at_least: bool = True
    unit: str = " ×"

    @property
    def verdict(self) -> str:
        """Return the cell of the table: met, missed or not measured."""
        if self.measured is None:
            return "not measured"
        return (
            "met" if (self.measured >= self.bound if self.at_least else self.measured <= self.bound) else "**missed**"
        )


@dataclass(frozen=True)
class Evidence:
    """The measurements that the floors are checked against.

    Attributes:
        ours: the contender that they are about.
        reference: comparison on the reference shape.
        digits: comparison on the bundled model.
        sweep: measurements of the contender's bundle of the reference shape.
        sizes: bytes on disk of the float32 bundle and of the contender's.
        word_error_rates: Word error rates of the bundled model, in float32 and of the contender.
    """

    ours: str
    reference: Comparison
    digits: Comparison
    sweep: Sequence[Measurement]
    sizes: tuple[int, int] | None
    word_error_rates: tuple[float, float] | None


def floors(evidence: Evidence) -> list[Floor]:
    """Every floor, met or not."""
    reference, ours = evidence.reference, evidence.ours

    def faster(name: str, peer: str, bound: float, case: Case, metric: Metric) -> Floor:
        slow, fast = reference.get(peer, NOTHING), reference.get(ours, NOTHING)
        return Floor(f"{name}, against {peer}", bound, ratio(slow.rounds(case, metric), fast.rounds(case, metric)))

    digits = [evidence.digits.get(name, NOTHING).rounds(CLIP, "utterance") for name in (TORCH_FLOAT32, ours)]
    memory = [reference.get(name, NOTHING).peak_rss_bytes for name in (ours, TORCH_FLOAT32)]
    sizes, rates = evidence.sizes, evidence.word_error_rates
    return [
        faster("encoder", TORCH_FLOAT32, 4, SINGLE, "encoder"),
        faster("encoder", OPENVINO, 1.2, SINGLE, "encoder"),
        faster("step at 5 beams", CTRANSLATE2, 2.3, SINGLE, "per_token"),
        faster("step at 5 beams", TORCH_FLOAT32, 6, SINGLE, "per_token"),
        faster("whole utterance", TORCH_FLOAT32, 5.5, SINGLE, "utterance"),
        faster("whole utterance", TORCH_BFLOAT16, 2.2, SINGLE, "utterance"),
        faster("whole utterance", PLAIN_FLOAT32, 3, SINGLE, "utterance"),
        faster("throughput at batch 8", TORCH_BFLOAT16, 2, BATCH, "utterance"),
        Floor(f"peak memory, of that of {TORCH_FLOAT32}", 0.35, ratio(*memory), at_least=False),
        Floor("bundle size, of float32", 0.28, sizes and sizes[1] / sizes[0], at_least=False),
        Floor("load from a warm disk", 2.5, _load_seconds(evidence.sweep), at_least=False, unit=" s"),
        Floor("cost per token, 60 s of audio against 10 s", 1.25, _longer_audio(evidence.sweep), at_least=False),
        Floor(f"cost per token, prefix of {LONG_PREFIX}", 1.25, _longer_prefix(evidence.sweep), at_least=False),
        Floor("bundled model: whole clip at 4 beams, against transformers", 10, ratio(*digits)),
        Floor(
            "bundled model: word error rate over that of float32",
            0.3,
            rates and 100 * (rates[1] - rates[0]),
            at_least=False,
            unit=" points",
        ),
    ]


def as_table(found: Sequence[Floor]) -> list[str]:
    """Markdown: measured, floor, met or not."""

    def shown(value: float | None, unit: str) -> str:
        return "–" if value is None else f"{value:.2f}{unit}"

    rows = [
        [
            floor.name,
            shown(floor.measured, floor.unit),
            f"{'≥' if floor.at_least else '≤'} {floor.bound:g}{floor.unit}",
            floor.verdict,
        ]
        for floor in found
    ]
    return table(("", "measured", "floor", ""), rows)


def absences(comparisons: Mapping[str, Comparison]) -> list[str]:
    """A line for each contender that did not run, with the reason."""
    return [
        f"- {name} ({where}) is missing: {outcome.absent.strip().splitlines()[-1]}"
        for where, outcomes in comparisons.items()
        for name, outcome in outcomes.items()
        if outcome.absent
    ]


def _load_seconds(sweep: Sequence[Measurement]) -> float | None:
    """Median of all that `from_pretrained` does, comparing hashes included."""
    times = [found.check_seconds + found.load_seconds for found in sweep]
    return float(np.median(times)) if times else None


def _longer_audio(sweep: Sequence[Measurement]) -> float | None:
    steps: dict[float, float] = {}
    for found in sweep:
        case = found.case
        if (case.batch, case.beams, case.tokens) == (1, 5, 40) and found.per_token and case.seconds in (10, 60):
            steps.setdefault(case.seconds, found.per_token.p50)
    return steps[60] / steps[10] if len(steps) == 2 else None


def _longer_prefix(sweep: Sequence[Measurement]) -> float | None:
    for found in sweep:
        if found.case.tokens == LONG_PREFIX:
            steps = found.per_token_at
            return float(np.median(steps[-_EDGE:]) / np.median(steps[:_EDGE]))
    return None
