"""Positions of new tokens as an input of the graph, where transformers computes them from the length of the cache.

That length is an int, which tracing would turn into a constant. Here it is a `PastLength`, which is the graph's input
wherever torch computes with it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn.functional import embedding
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from transformers.cache_utils import DynamicLayer

from ..errors import ExportError

_LIKELY = 1
"""Value of a `PastLength` outside torch: some past, within any table of positions."""


class PastLength(int):
    """The length of a past; within `PositionsFromInput` a tensor, the position of each new token.

    Python sees a past of one token, for which conditions such as `past > 0` and `past + tokens > positions` come out as
    for any past within the decoder's positions.

    Attributes:
        positions: Position of each new token, int64 [tokens].
        remedy: What the user can do where a decoder uses the length for something else.
    """

    positions: Tensor
    remedy: str

    def __new__(cls, positions: Tensor, remedy: str, likely: int = _LIKELY) -> "PastLength":
        """Create it from an input of the graph, int64 [tokens]."""
        self = super().__new__(cls, likely)
        self.positions = positions
        self.remedy = remedy
        return self

    def refused(self, what: str) -> ExportError:
        """Return the error for a decoder that does `what`."""
        return ExportError(f"its decoder {what}; {self.remedy}")

    def __add__(self, other: Any) -> Any:
        """Return another length that is known in the graph only; a plain number if `other` is a size of the graph."""
        if isinstance(other, torch.SymInt):
            return int(self) + other
        if isinstance(other, int):
            return PastLength(self.positions + other, self.remedy, int(self) + other)
        return NotImplemented

    __radd__ = __add__

    def _unknown(self, other: Any) -> Any:
        """Refuse other arithmetic: Python would compute it for a past of one token, and tracing would keep that."""
        if isinstance(other, int | torch.SymInt):
            raise self.refused("uses the length of the past for more than positions")
        return NotImplemented  # a tensor computes it

    __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _unknown


class _Index:
    """The index of each new token, `torch.arange(tokens)`: of use only where the length of the past is added to it."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def __add__(self, other: Any) -> Any:
        return other.positions.to(self._dtype) if isinstance(other, PastLength) else NotImplemented

    __radd__ = __add__

    def __getattr__(self, name: str) -> Any:
        raise ExportError(
            f"its decoder uses the index of a new token for more than its position ({name}); give --growing-cache"
        )


class PositionsFromInput(TorchFunctionMode):
    """Lets torch compute with the positions of each `PastLength`.

    Enter it inside the traced `forward`: torch.export has a mode of its own around that, which comes first.

    - `torch.arange(past, past + tokens)` and `torch.arange(tokens) + past` are the positions;
    - `table[:, past : past + tokens]` is a lookup instead of a slice, whose bounds the host would have to know;
    - `table[positions]` is a lookup too: the kernel of an indexed gather reads numbers from the host's memory, where a
      recorded step would no longer find them;
    - `torch.cumsum(mask, dim=1) + past` are the positions less the number of tokens that the mask leaves out; RoBERTa
      does not count padding.
    """

    def __init__(self, beams: Any = 1, tokens: Any = 1) -> None:
        """Know the new tokens: `tokens` of each of `beams`, which are further tokens to the decoder."""
        super().__init__()
        self._shape = (beams, tokens)
        self._queries = beams * tokens

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.arange:
            if len(args) == 2 and isinstance(args[0], PastLength):
                return self._positions(*args).to(kwargs.get("dtype") or torch.int64)
            if len(args) == 1 and self._counts_queries(args[0]):
                return _Index(kwargs.get("dtype") or torch.int64)
        if function is Tensor.__getitem__:
            return self._looked_up(*args)
        if function is torch.cumsum and kwargs.get("dim") == 1 and self._counts_queries(args[0].shape[1]):
            return self._counted(*args)
        return function(*tree_map(_positions, args), **tree_map(_positions, kwargs))

    def _counts_queries(self, size: Any) -> bool:
        """Return true if `size` is the number of all new tokens; false for a single one, whose index is 0 anyway."""
        single = isinstance(self._queries, int) and self._queries == 1
        return not single and statically_known_true(size == self._queries)

    def _positions(self, begin: PastLength, end: Any) -> Tensor:
        tokens = int(end) - int(begin) if isinstance(end, PastLength) else end - int(begin)
        if not statically_known_true(tokens == self._queries):
            raise begin.refused(f"looks up {tokens} positions for {self._queries} new tokens")
        return begin.positions

    def _looked_up(self, table: Tensor, index: Any) -> Tensor:
        """Return `table[index]`, where a slice of `index` may be the positions after the past."""
        if table.ndim == 2 and isinstance(index, Tensor) and index.dtype == torch.int64:
            return embedding(index, table)
        parts = list(index) if isinstance(index, tuple) else [index]
        for axis, part in enumerate(parts):
            if isinstance(part, slice) and isinstance(part.start, PastLength):
                if any(each != slice(None) for each in parts[:axis]):
                    raise part.start.refused(f"looks a position up by the index {index}")
                table = table.index_select(axis, self._positions(part.start, part.stop))
                parts[axis] = slice(None)
        return table[tuple(parts)]

    def _counted(self, mask: Tensor) -> Tensor:
        """Return how many tokens of each beam `mask` counts, less the index of the token, which its position has.

        Args:
            mask: Integers [batch, beams × tokens], 1 for tokens that count, otherwise 0.
        """
        uncounted = (1 - mask).view(-1, *self._shape)
        return 1 - torch.cumsum(uncounted, dim=2).flatten(1)


class PastLayer(DynamicLayer):  # type: ignore[misc]
    """Self-attention cache of a layer whose length is a `PastLength`."""

    def __init__(self, past_length: PastLength) -> None:
        """Begin with a past of this length."""
        super().__init__()
        self._past_length = past_length
        self.is_initialized = True

    def get_seq_length(self) -> int:
        """Return the number of past tokens."""
        return self._past_length


def _positions(value: object) -> object:
    return value.positions if isinstance(value, PastLength) else value
