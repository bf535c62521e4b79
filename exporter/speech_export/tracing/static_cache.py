"""A self-attention cache of constant length, so that no shape of a step depends on the number of past tokens."""

import torch
from torch import Tensor
from torch.nn.functional import embedding

from .past_length import PastLayer, PastLength

REMEDY = "leave --static-cache out"
"""What to do with a decoder that cannot have such a cache."""


class StaticLayer(PastLayer):
    """Keys and values of the live beams; one step writes its own behind those of the past.

    Attributes:
        present: Keys and values, each [batch, beams, heads, length, head_dim]; set by `update`.
    """

    def __init__(self, past: tuple[Tensor, Tensor], past_rows: Tensor, past_length: PastLength) -> None:
        """Select the past of each beam.

        Args:
            past: Keys and values, each [batch, past_beams, heads, length, head_dim]; behind the first `past_length`
                they may be anything, NaN included.
            past_rows: Row of the past that each beam continues, int64 [batch, beams], out of [batch × past_beams].
            past_length: Number of past tokens.
        """
        super().__init__(past_length)
        # A lookup, as of embeddings: the kernel of an indexed gather reads numbers from the host's memory, where a
        # recorded step would no longer find them.
        self._continued = [
            embedding(past_rows, state.flatten(0, 1).flatten(1)).view(*past_rows.shape, *state.shape[2:])
            for state in past
        ]
        self._length = past[0].shape[3]
        self._seen = (torch.arange(self._length) < past_length.positions).unsqueeze(1)
        self._shape = past_rows.shape
        self.present: tuple[Tensor, Tensor]

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write states [batch × beams, heads, 1, head_dim] behind the past; return the cache [..., length, head_dim].

        They fill all positions behind it: the mask hides all but the first, and no stale value is left.
        """
        key, value = (
            torch.where(self._seen, past, new.view(*self._shape, *new.shape[1:]))
            for past, new in zip(self._continued, (key_states, value_states), strict=True)
        )
        self.present = key, value
        self.keys, self.values = key.flatten(0, 1), value.flatten(0, 1)
        return self.keys, self.values


def length_mask(rows: int, length: int, past_length: PastLength) -> Tensor:
    """Return a mask that is added to the scores and hides unwritten positions: float32 [rows, 1, 1, length]."""
    added = torch.where(torch.arange(length) <= past_length.positions, 0.0, torch.finfo(torch.float32).min)
    return added[None, None, None].expand(rows, -1, -1, -1)
