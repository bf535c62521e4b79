"""The accuracy gate: convert, measure, and leave in float32 what hurts, until the tokens agree or it is refused."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import VerificationError
from ..limits import Limits
from ..verification.compare import Comparison, compare
from ..verification.expectation import Expectation
from .conversion import Conversion
from .sensitivity import Layer, layers, most_harmful_first

logger = logging.getLogger(__name__)

_MOST_KEPT = 0.5
"""Of the weights: a bundle with more of them in float32 is hardly smaller or faster."""
_SEARCHES = 4
"""Of those that the whole bundle is measured on, so many say how much a layer hurts."""


@dataclass(frozen=True)
class Converted:
    """A bundle below float32, and what it was measured to be.

    Attributes:
        kept_float32: names of what is float32 in it.
        result: what was measured.
    """

    kept_float32: tuple[str, ...]
    result: Comparison


def convert_accurately(
    conversion: Conversion,
    directory: Path,
    expected: Sequence[Expectation],
    limits: Limits,
    on_stage: Callable[[str], None],
) -> Converted:
    """Convert into `directory`, with as little in float32 as `limits.agreement` asks for.

    Raises:
        VerificationError: it would take more than half of the weights.
    """

    def attempt(kept: frozenset[str]) -> Converted:
        left = conversion.write(directory, kept)
        with conversion.opened(directory) as exported:
            return Converted(tuple(sorted(left)), compare(expected, exported))

    kept = conversion.kept
    converted = attempt(kept)
    if converted.result.agreement >= limits.agreement:
        return converted
    on_stage(f"{converted.result.agreement:.2%} of the tokens agree: looking for the layers that hurt")
    found = layers([part for part in conversion.parts if part.name not in kept])
    candidates = [layer for layer in found if layer.parameters]
    ranking = most_harmful_first(candidates, lambda layer: _drift_of(layer, conversion, directory, expected))
    most = _MOST_KEPT * sum(part.parameters for part in conversion.parts)
    count = 1
    while True:
        harmful = ranking[:count]
        chosen = kept.union(*(layer.names for layer in harmful))
        if sum(part.parameters for part in conversion.parts if part.name in chosen) > most or count > len(ranking):
            tried = ", ".join(layer.name for layer in ranking[: count // 2]) or "nothing"
            raise VerificationError(
                f"only {converted.result.agreement:.2%} of the tokens are the same, the limit is "
                f"{limits.agreement:.2%} (--min-agreement), with {tried} in float32, and more would be over half of "
                "the weights; export with --precision fp32"
            )
        converted = attempt(chosen)
        agreement = converted.result.agreement
        logger.info("with %s in float32: %.2f %%", ", ".join(layer.name for layer in harmful), 100 * agreement)
        if agreement >= limits.agreement:
            return converted
        count *= 2


def _drift_of(layer: Layer, conversion: Conversion, directory: Path, expected: Sequence[Expectation]) -> float:
    """Mean difference of log-probabilities when nothing but `layer` is below float32."""
    others = frozenset(part.name for part in conversion.parts) - layer.names
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        conversion.write(Path(scratch), others)
        with conversion.opened(Path(scratch)) as exported:
            return compare(expected[:_SEARCHES], exported, search=False).drift
