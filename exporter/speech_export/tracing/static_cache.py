"""A self-attention cache of one length for ever, so that no shape of a step depends on how much it has seen.

transformers asks a cache how long it is, and makes positions of the answer: an int, which tracing takes for a
constant. Here the answer is a `PastLength`, which is the graph's input wherever torch computes with it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from transformers.cache_utils import DynamicLayer

from ..errors import ExportError

_REMEDY = "leave --static-cache out"
_LIKELY = 1
"""What a `PastLength` is outside of torch: some past, within any table of positions."""


class PastLength(int):
    """The length of a past; a tensor int64 [1] within `PositionsFromInput`.

    Python sees a past of a token, which decides as any past within the decoder's positions would: `past > 0`,
    `past + tokens > positions`.
    """

    tensor: Tensor

    def __new__(cls, tensor: Tensor, likely: int = _LIKELY) -> "PastLength":
        """Make it of the graph's input, int64 [1]."""
        self = super().__new__(cls, likely)
        self.tensor = tensor
        return self

    def __add__(self, other: Any) -> Any:
        """Another length that is known in the graph only."""
        return PastLength(self.tensor + other, int(self) + other) if isinstance(other, int) else NotImplemented

    __radd__ = __add__

    def _unknown(self, other: Any) -> Any:
        """Any other length: Python's own answer would be that of a past of one token, for ever."""
        if isinstance(other, int):
            raise ExportError(f"its decoder computes more with the length of a past than positions; {_REMEDY}")
        return NotImplemented  # a tensor, which knows what to do

    __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _unknown


class PositionsFromInput(TorchFunctionMode):
    """Where torch is given a `PastLength`, let it compute with the tensor; steps are of one token.

    Enter it inside the traced `forward`: torch.export has a mode of its own around that, which comes first.

    - `torch.arange(past, past + 1)` is the position of the token;
    - `table[:, past : past + 1]` is a lookup, and no slice, whose bounds would have to be known to the host;
    - `table[positions]` is a lookup too; see `StaticLayer`.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.arange and len(args) == 2 and all(isinstance(end, PastLength) for end in args):
            return _only_position(*args).to(kwargs.get("dtype") or torch.int64)
        if function is Tensor.__getitem__:
            return _looked_up(*args)
        return function(*tree_map(_tensor, args), **tree_map(_tensor, kwargs))


def _tensor(value: object) -> object:
    return value.tensor if isinstance(value, PastLength) else value


def _only_position(begin: PastLength, end: PastLength) -> Tensor:
    tokens = int(end) - int(begin)
    if tokens != 1:
        raise ExportError(f"its decoder looks up {tokens} positions for one token; {_REMEDY}")
    return begin.tensor


def _looked_up(table: Tensor, index: Any) -> Tensor:
    """`table[index]` where a slice of `index` may be the one position behind the past."""
    if table.ndim == 2 and isinstance(index, Tensor) and index.dtype == torch.int64:
        return embedding(index, table)
    parts = list(index) if isinstance(index, tuple) else [index]
    for axis, part in enumerate(parts):
        if isinstance(part, slice) and isinstance(part.start, PastLength):
            if any(each != slice(None) for each in parts[:axis]):
                raise ExportError(f"its decoder looks a position up by the index {index}; {_REMEDY}")
            table = table.index_select(axis, _only_position(part.start, part.stop))
            parts[axis] = slice(None)
    return table[tuple(parts)]


class StaticLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of the beams that go on, in which one step puts its own behind those that it has seen.

    Attributes:
        present: keys and values, each [batch, beams, heads, length, head_dim]; there once updated.
    """

    def __init__(self, past: tuple[Tensor, Tensor], past_rows: Tensor, past_length: PastLength) -> None:
        """Select what each beam goes on from.

        Args:
            past: keys and values, each [batch, past_beams, heads, length, head_dim]; what is behind the first
                `past_length` may be anything, NaN too.
            past_rows: int64 [batch, beams], of all [batch × past_beams].
            past_length: tokens that were seen.
        """
        super().__init__()
        # A lookup, as of embeddings: the kernel of an indexed gather is given numbers in the host's memory, where a
        # recorded step would not find them any more.
        self._continued = [
            embedding(past_rows, state.flatten(0, 1).flatten(1)).view(*past_rows.shape, *state.shape[2:])
            for state in past
        ]
        self._length = past[0].shape[3]
        self._past_length = past_length
        self._seen = (torch.arange(self._length) < past_length.tensor).unsqueeze(1)
        self._shape = past_rows.shape
        self.present: tuple[Tensor, Tensor]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Put states [batch × beams, heads, 1, head_dim] behind the past; returns all, [..., length, head_dim].

        They are in all places behind it: the mask hides all but the first, and no place is left with what it had.
        """
        key, value = (
            torch.where(self._seen, past, new.view(*self._shape, *new.shape[1:]))
            for past, new in zip(self._continued, (key_states, value_states), strict=True)
        )
        self.present = key, value
        self.keys, self.values = key.flatten(0, 1), value.flatten(0, 1)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens that were seen."""
        return self._past_length


def length_mask(rows: int, length: int, past_length: PastLength) -> Tensor:
    """What is added to the scores so that a token sees itself and all before it: float32 [rows, 1, 1, length]."""
    added = torch.where(torch.arange(length) <= past_length.tensor, 0.0, torch.finfo(torch.float32).min)
    return added[None, None, None].expand(rows, -1, -1, -1)
