"""Interface between the decoder and its self-attention cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ....backends.base import Value
from ...search.base import PerBeam, Tokens


@dataclass(frozen=True)
class Binding:
    """Tensors that a step of the decoder reads and writes.

    Attributes:
        shape: Shape of the tokens, [batch, beams, tokens].
        inputs: Input tensors by name; the tokens are among them, since the cache may want an order of its own.
        outputs: Names of the outputs that the cache takes in `commit`.
        into: Tensors that other outputs are written to; see `Backend.prepare`.
        places: Function that takes the names of all other outputs and returns the tensors that they are written to;
            it returns None, or is None, where the backend may choose.
    """

    shape: tuple[int, ...]
    inputs: Mapping[str, Value]
    outputs: Sequence[str] = ()
    into: Mapping[str, Value] = field(default_factory=dict)
    places: Callable[[Sequence[str]], Mapping[str, Value] | None] | None = None


class SelfAttentionCache(Protocol):
    """Keys and values of the tokens that each beam has seen. It starts empty, with one beam per utterance."""

    def bind(self, input_ids: Tokens, beam_idx: PerBeam) -> Binding:
        """Prepare a step.

        Args:
            input_ids: Token ids, int64 [batch, beams, tokens].
            beam_idx: Beams of the last step that are continued.

        Returns:
            The same binding as for the last step if only the contents of its tensors have changed.
        """

    def append_token(self, tokens: PerBeam, beam_idx: PerBeam) -> Binding:
        """Prepare a step of one token for each beam; see `bind`."""

    @property
    def slots(self) -> PerBeam | None:
        """Position of each beam in the outputs of the step that was bound last; None where beams are in order."""

    def commit(self, results: Mapping[str, Value]) -> None:
        """Take the outputs of the step that was bound last as the new past."""

    def select_utterances(self, utterances: Sequence[int]) -> None:
        """Drop all utterances but these, and put them in this order: each stays or moves to the front."""
