"""Which layers of a model quantisation hurts most, for each byte that it saves there."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..passes.quantization import Part

logger = logging.getLogger(__name__)

_LAYER = re.compile(r"(.*?\.\d+)(?:\.|$)")


@dataclass(frozen=True)
class Layer:
    """Parts that are measured, and kept in float32, together.

    Attributes:
        name: what their names have in common.
        parts: of one or more graphs.
        drift: mean difference of log-probabilities when nothing but this layer is quantised.
    """

    name: str
    parts: tuple[Part, ...]
    drift: float = 0.0

    @property
    def names(self) -> frozenset[str]:
        """Of the parts."""
        return frozenset(part.name for part in self.parts)

    @property
    def parameters(self) -> int:
        """Weights in it: what it saves is three bytes for each in int8, and three and a half in int4."""
        return sum(part.parameters for part in self.parts)


def layers(parts: Sequence[Part]) -> list[Layer]:
    """Parts by the first number in their name: `encoder.layers.3.fc1` goes with all of `encoder.layers.3`."""
    groups: dict[str, list[Part]] = {}
    for part in parts:
        match = _LAYER.match(part.name)
        groups.setdefault(match[1] if match else part.name, []).append(part)
    return [Layer(name, tuple(members)) for name, members in groups.items()]


def most_harmful_first(candidates: Sequence[Layer], drift_of: Callable[[Layer], float]) -> list[Layer]:
    """Measure each layer alone, and order them by the damage done for each weight.

    Args:
        candidates: layers that could be kept in float32.
        drift_of: mean difference of log-probabilities when nothing but this layer is quantised.
    """
    measured = []
    for number, layer in enumerate(candidates, start=1):
        measured.append(replace(layer, drift=drift_of(layer)))
        logger.info("%d/%d %s alone: drift %.2g", number, len(candidates), layer.name, measured[-1].drift)
    return sorted(measured, key=lambda layer: layer.drift / layer.parameters, reverse=True)
