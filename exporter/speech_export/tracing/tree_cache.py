"""A self-attention cache that all beams of an utterance share, so that no step reorders or copies it.

The beams are tokens of one sequence: each token writes its key and value to a slot of its own, and a mask says which
slots it sees, those of its ancestors (tree attention, as in SpecInfer, https://arxiv.org/abs/2305.09781). Running a
step twice writes the same numbers to the same slots, and no shape depends on the number of past tokens: a step can be
recorded.
"""

from collections.abc import Callable

import onnxscript
import torch
from torch import Tensor

from .past_length import PastLayer, PastLength

REMEDY = "give --growing-cache"
"""What to do with a decoder that cannot have such a cache."""

OPSET = 24
"""The first opset with TensorScatter."""

_ONNX = onnxscript.values.Opset("", OPSET)


@torch.library.custom_op("speech_export::write_rows", mutates_args=())
def write_rows(past: Tensor, rows: Tensor, begin: Tensor) -> Tensor:
    """Return a copy of `past` with other rows from `begin` on: ONNX's TensorScatter, which may write in place.

    Args:
        past: Tensor [batch, slots, width].
        rows: New rows [batch, queries, width].
        begin: Slot of the first of them, int64 [batch].
    """
    slots = begin[:, None] + torch.arange(rows.shape[1])
    return past.scatter(1, slots[:, :, None].expand_as(rows), rows)


@write_rows.register_fake
def _(past: Tensor, rows: Tensor, begin: Tensor) -> Tensor:  # noqa: ARG001 - the shape depends on `past` alone
    return torch.empty_like(past)


def _tensor_scatter(past: object, rows: object, begin: object) -> object:
    return _ONNX.TensorScatter(past, rows, begin, axis=1)


TRANSLATIONS: dict[Callable[..., object], Callable[..., object]] = {
    torch.ops.speech_export.write_rows.default: _tensor_scatter
}
"""Operators that `torch.onnx.export` has to be told of."""


class TreeLayer(PastLayer):
    """Keys and values of all tokens of an utterance's beams, each in a slot of its own.

    Attributes:
        present: Keys and values, each [batch, slots, heads · head_dim]; set by `update`.
    """

    def __init__(self, past: tuple[Tensor, Tensor], write_slot: Tensor, past_length: PastLength) -> None:
        """Begin with the slots of a past.

        Args:
            past: Keys and values, each [batch, slots, heads · head_dim].
            write_slot: Slot of the first new token of each utterance, int64 [batch]; the others follow it.
            past_length: Length of the past, with the position of each new token.
        """
        super().__init__(past_length)
        self._past = past
        self._write_slot = write_slot
        self.present: tuple[Tensor, Tensor]

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write states [batch, heads, queries, head_dim]; return all slots [batch, heads, slots, head_dim]."""
        heads = key_states.shape[1]
        key, value = (
            write_rows(past, merged_heads(new), self._write_slot)
            for past, new in zip(self._past, (key_states, value_states), strict=True)
        )
        self.present = key, value
        self.keys, self.values = split_heads(key, heads), split_heads(value, heads)
        return self.keys, self.values


def merged_heads(states: Tensor) -> Tensor:
    """Return states [batch, heads, tokens, head_dim] as [batch, tokens, heads · head_dim]."""
    return states.transpose(1, 2).flatten(2)


def split_heads(states: Tensor, heads: int) -> Tensor:
    """Return states [batch, tokens, heads · head_dim] as [batch, heads, tokens, head_dim]."""
    batch, tokens, width = states.shape
    return states.view(batch, tokens, heads, width // heads).transpose(1, 2)


def slots_mask(slot_mask: Tensor) -> Tensor:
    """Return a mask bool [batch, queries, slots] as one that is added to the scores: float32 [batch, 1, …]."""
    return torch.where(slot_mask, 0.0, torch.finfo(torch.float32).min).unsqueeze(1)
