"""What the decoder asks of a self-attention cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ....backends.base import Value
from ...search.candidates import Slots
from ...search.state import Rows, Tokens


@dataclass(frozen=True)
class Binding:
    """What a step is to be run on.

    Attributes:
        shape: of the tokens, [batch, beams, tokens].
        inputs: tensors by name; the tokens too, for the cache may want them in an order of its own.
        outputs: that the cache wants back.
        into: what other outputs are written to; see `Backend.prepare`.
        places: where all other outputs of the step go, by name; None where the backend may choose.
    """

    shape: tuple[int, ...]
    inputs: Mapping[str, Value]
    outputs: Sequence[str] = ()
    into: Mapping[str, Value] = field(default_factory=dict)
    places: Callable[[Sequence[str]], Mapping[str, Value]] | None = None


class SelfAttentionCache(Protocol):
    """Keys and values of what the beams of a batch have seen. It starts 0 long, with one beam for each utterance."""

    def bind(self, input_ids: Tokens, beams: Rows) -> Binding:
        """Prepare a step.

        Args:
            input_ids: int64 [batch, beams, tokens].
            beams: of the last step, those that are continued.

        Returns:
            The very binding of the last step where all tensors are the same, and only what is in them is new.
        """

    def go_on(self, tokens: Rows, beams: Rows) -> Binding:
        """See `bind`; of one token for each beam."""

    @property
    def slots(self) -> Slots | None:
        """Rows of the beams in what the step answers with that was bound last; None where they are in order."""

    def advance(self, results: Mapping[str, Value]) -> None:
        """Take what the step that was bound last made."""

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with some utterances only, and give back the memory of the others."""
