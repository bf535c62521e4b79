"""The accuracy gate: convert, measure, and keep the most harmful layers in float32 until enough tokens agree."""

import logging
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import VerificationError
from ..limits import Limits
from ..verification.compare import Comparison, compare
from ..verification.reference import Expectation
from .conversion import Conversion, Part

logger = logging.getLogger(__name__)

_MOST_KEPT = 0.5
"""Largest share of weights to keep in float32: a bundle with more is hardly smaller or faster."""
_MEASURED = 4
"""Number of the expected results that each layer is measured on; the whole bundle is measured on all."""
_LAYER = re.compile(r"(.*?\.\d+)(?:\.|$)")


@dataclass(frozen=True)
class Converted:
    """A bundle below float32, and how it compares with the torch model.

    Attributes:
        kept_float32: Names of its parts, nodes and states that are float32.
        result: Comparison with the torch model.
        for_accuracy: Parts that are float32 because too few tokens agreed, and neither asked for nor out of range.
    """

    kept_float32: tuple[str, ...]
    result: Comparison
    for_accuracy: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Layer:
    """Parts that are measured together, and kept in float32 together.

    Attributes:
        name: Common prefix of the names of the parts.
        parts: Parts, from one or more graphs.
        drift: Mean difference of log-probabilities when only this layer is converted.
    """

    name: str
    parts: tuple[Part, ...]
    drift: float = 0.0

    @property
    def names(self) -> frozenset[str]:
        """Names of the parts."""
        return frozenset(part.name for part in self.parts)

    @property
    def parameters(self) -> int:
        """Number of weights in the layer. int8 saves three bytes for each, int4 three and a half."""
        return sum(part.parameters for part in self.parts)


def convert_accurately(
    conversion: Conversion,
    directory: Path,
    expected: Sequence[Expectation],
    limits: Limits,
    on_stage: Callable[[str], None],
) -> Converted:
    """Convert into `directory`, and keep as little in float32 as `limits` allow.

    Raises:
        VerificationError: More than half of the weights would have to stay float32.
    """

    def attempt(kept: frozenset[str]) -> Converted:
        left = conversion.write(directory, kept)
        with conversion.opened(directory) as exported:
            return Converted(tuple(sorted(left)), compare(expected, exported))

    kept = conversion.kept
    converted = attempt(kept)
    if not (shortfalls := converted.result.shortfalls(limits)):
        return converted
    on_stage(f"{'; '.join(shortfalls)}: looking for the most harmful layers")
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
                f"{'; '.join(shortfalls)}, with {tried} in float32, and more would be over half of the weights; export "
                "with --precision fp32"
            )
        converted = attempt(chosen)
        share = 100 * converted.result.agreement
        logger.info("with %s in float32: %.2f %%", ", ".join(layer.name for layer in harmful), share)
        if not (shortfalls := converted.result.shortfalls(limits)):
            return replace(converted, for_accuracy=tuple(part for layer in harmful for part in layer.parts))
        count *= 2


def layers(parts: Sequence[Part]) -> list[Layer]:
    """Group parts by the first number in their names: `encoder.layers.3.fc1` goes with all of `encoder.layers.3`."""
    groups: dict[str, list[Part]] = {}
    for part in parts:
        match = _LAYER.match(part.name)
        groups.setdefault(match[1] if match else part.name, []).append(part)
    return [Layer(name, tuple(members)) for name, members in groups.items()]


def most_harmful_first(candidates: Sequence[Layer], drift_of: Callable[[Layer], float]) -> list[Layer]:
    """Measure each layer alone, and order the layers by their drift per weight.

    Args:
        candidates: Layers that could be kept in float32.
        drift_of: Function that returns the mean difference of log-probabilities when only that layer is converted.
    """
    measured = []
    for number, layer in enumerate(candidates, start=1):
        measured.append(replace(layer, drift=drift_of(layer)))
        logger.info("%d/%d %s alone: drift %.2g", number, len(candidates), layer.name, measured[-1].drift)
    return sorted(measured, key=lambda layer: layer.drift / layer.parameters, reverse=True)


def _drift_of(layer: Layer, conversion: Conversion, directory: Path, expected: Sequence[Expectation]) -> float:
    """Return the mean difference of log-probabilities when only `layer` is below float32."""
    others = frozenset(part.name for part in conversion.parts) - layer.names
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        conversion.write(Path(scratch), others)
        with conversion.opened(Path(scratch)) as exported:
            return compare(expected[:_MEASURED], exported, search=False).drift
