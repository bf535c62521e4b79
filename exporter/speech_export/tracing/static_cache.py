"""A self-attention cache of constant length, so that no shape of a step depends on the number of past tokens.

transformers computes positions from the length of the cache, an int, which tracing would turn into a constant. Here the
length is a `PastLength`, which is the graph's input wherever torch computes with it.
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
"""Value of a `PastLength` outside torch: some past, within any table of positions."""


class PastLength(int):
    """The length of a past; a tensor int64 [1] within `PositionsFromInput`.

    Python sees a past of one token, for which conditions such as `past > 0` and `past + tokens > positions` come out as
    for any past within the decoder's positions.
    """

    tensor: Tensor

    def __new__(cls, tensor: Tensor, likely: int = _LIKELY) -> "PastLength":
        """Create it from the graph's input, int64 [1]."""
        self = super().__new__(cls, likely)
        self.tensor = tensor
        return self

    def __add__(self, other: Any) -> Any:
        """Return another length that is known in the graph only."""
        return PastLength(self.tensor + other, int(self) + other) if isinstance(other, int) else NotImplemented

    __radd__ = __add__

    def _unknown(self, other: Any) -> Any:
        """Refuse other arithmetic: Python would compute it for a past of one token, and tracing would keep that."""
        if isinstance(other, int):
            raise ExportError(f"its decoder uses the length of the past for more than positions; {_REMEDY}")
        return NotImplemented  # a tensor computes it

    __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _unknown


class PositionsFromInput(TorchFunctionMode):
    """Lets torch compute with the tensor of each `PastLength`; a step has one token.

    Enter it inside the traced `forward`: torch.export has a mode of its own around that, which comes first.

    - `torch.arange(past, past + 1)` is the position of the token;
    - `table[:, past : past + 1]` is a lookup instead of a slice, whose bounds the host would have to know;
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
    """Return `table[index]`, where a slice of `index` may be the one position after the past."""
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
        super().__init__()
        # A lookup, as of embeddings: the kernel of an indexed gather reads numbers from the host's memory, where a
        # recorded step would no longer find them.
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

    def get_seq_length(self) -> int:
        """Return the number of past tokens."""
        return self._past_length


def length_mask(rows: int, length: int, past_length: PastLength) -> Tensor:
    """Return a mask that is added to the scores and hides unwritten positions: float32 [rows, 1, 1, length]."""
    added = torch.where(torch.arange(length) <= past_length.tensor, 0.0, torch.finfo(torch.float32).min)
    return added[None, None, None].expand(rows, -1, -1, -1)
