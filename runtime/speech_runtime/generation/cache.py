"""What the decoder asks of a self-attention cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..engines.engine import Value

Tokens = NDArray[np.int64]


@dataclass(frozen=True)
class Binding:
    """What a step is to be run on.

    Attributes:
        inputs: tensors by name; the tokens too, for the cache may want them in an order of its own.
        outputs: that the cache wants back.
        into: what other outputs are written to; see `Engine.prepare`.
        places: where all other outputs of the step go, by name; None where the engine may choose.
    """

    inputs: Mapping[str, Value]
    outputs: Sequence[str] = ()
    into: Mapping[str, Value] = field(default_factory=dict)
    places: Callable[[Sequence[str]], Mapping[str, Value]] | None = None


class SelfAttentionCache(Protocol):
    """Keys and values of what the beams of a batch have seen. It starts 0 long, with one beam for each utterance."""

    def bind(self, input_ids: Tokens, beam_idx: Tokens) -> Binding:
        """Prepare a step.

        Args:
            input_ids: int64 [batch, beams, tokens].
            beam_idx: int64 [batch, beams], the beams of the last step that are continued.

        Returns:
            The very binding of the last step where all tensors are the same, and only what is in them is new.
        """

    def by_beam(self, found: NDArray[Any]) -> NDArray[Any]:
        """An output [batch, beams, …] of the step that was bound last, in the order of the beams."""

    def advance(self, results: Mapping[str, Value]) -> None:
        """Take what the step that was bound last made."""

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with some utterances only, and give back the memory of the others."""
