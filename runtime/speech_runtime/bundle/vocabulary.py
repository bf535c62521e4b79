"""The token ids of a decoder: all that its model has, or those that the bundle keeps of them."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..dataclass_json import FieldError, shown

_RANGES = re.compile(r"\d{1,10}(-\d{1,10})?(,\d{1,10}(-\d{1,10})?)*")
_NAMED = 8
"""Number of tokens that an error names."""


@dataclass(frozen=True)
class Vocabulary:
    """Token ids, which are the model's own everywhere but in the rows of its embedding and its head.

    A token that is not kept has no row there: its log-probability is -inf, and the softmax is that of the others.

    Attributes:
        size: Number of token ids of the model, which are 0 and above.
        kept: Token ids with a row, as ascending ranges such as "0-3,17"; None for all.
    """

    size: int
    kept: str | None = None

    def __post_init__(self) -> None:
        """Raise `FieldError` for ranges that are not ascending, or not within the vocabulary."""
        if self.kept is None:
            return
        if not _RANGES.fullmatch(self.kept):
            raise FieldError([f"decoder.kept_tokens is {shown(self.kept)}, expected ranges such as '0-3,17'"])
        before = -1
        for first, last in self._ranges:
            if not before < first <= last < self.size:
                expected = f"ascending ids below {self.size:,}"
                raise FieldError([f"decoder.kept_tokens is {shown(self.kept)}, expected {expected}"])
            before = last

    @classmethod
    def keeping(cls, size: int, tokens: Iterable[int]) -> "Vocabulary":
        """Return a vocabulary of `size` that keeps `tokens`."""
        ids = np.unique(np.fromiter(tokens, dtype=np.int64))
        parts = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
        ends = [(int(part[0]), int(part[-1])) for part in parts]
        return cls(size, ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in ends))

    @property
    def count(self) -> int:
        """Number of tokens with a row: the width of the logits."""
        return self.size if self.kept is None else sum(last + 1 - first for first, last in self._ranges)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Token id of each row, ascending: int64 [rows]."""
        if self.kept is None:
            return np.arange(self.size)
        return np.concatenate([np.arange(first, last + 1) for first, last in self._ranges])

    @cached_property
    def is_kept(self) -> NDArray[np.bool_]:
        """Whether each token has a row: bool [vocabulary]."""
        marks = np.zeros(self.size, dtype=np.bool_)
        marks[self.ids] = True
        return marks

    def unknown(self, tokens: Iterable[int]) -> list[int]:
        """Return those of `tokens` that the model does not have, ascending."""
        return sorted({token for token in tokens if not 0 <= token < self.size})

    def left_out(self, tokens: Iterable[int]) -> list[int]:
        """Return those of `tokens` that the model has and the bundle does not keep, ascending."""
        if self.kept is None:
            return []
        return sorted({token for token in tokens if 0 <= token < self.size and not self.is_kept[token]})

    def why_left_out(self, tokens: Iterable[int], name: Callable[[int], str] = str) -> str | None:
        """Return the part of an error about tokens that are left out, with the remedy; None if all are kept.

        Args:
            tokens: Token ids.
            name: Function that returns the name of a token for the error.
        """
        if not (missing := self.left_out(tokens)):
            return None
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        return (
            f"{', '.join(map(name, missing[:_NAMED]))}{more}, which this bundle leaves out: it keeps {self.count:,} of "
            f"{self.size:,} tokens; do without, or export the model again with them in a file of --vocabulary"
        )

    def expanded(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits [..., rows] as logits [..., vocabulary]: -inf where a token has no row."""
        if self.kept is None:
            return logits
        whole = np.full((*logits.shape[:-1], self.size), -np.inf, dtype=logits.dtype)
        whole[..., self.ids] = logits
        return whole

    @cached_property
    def _ranges(self) -> list[tuple[int, int]]:
        ends = (part.partition("-") for part in (self.kept or "").split(","))
        return [(int(first), int(last or first)) for first, _, last in ends]
