"""Tensors of a step that keep their addresses, so that a step can be recorded."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....backends.base import Backend, Value
from ....bundle.graph_io import (
    DECODER_WITH_PAST,
    ENCODER_ATTENTION_MASK,
    LOGITS,
    TOP_IDS,
    TOP_LOGPROBS,
    cache_names,
)
from ....bundle.model_facts import DecoderFacts

Layout = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and dtype of a tensor."""


class StepTensors:
    """Inputs and outputs of a step, for one search at a time, of `batch` utterances.

    Each tensor is allocated at its first use, and keeps its address.

    Attributes:
        fixed: Inputs that stay the same in a search, by name (mask and cross-attention cache), once `reserve` has
            allocated them; empty before.
    """

    def __init__(
        self, backend: Backend, facts: DecoderFacts, batch: int, take: Callable[[int], bool] | None = None
    ) -> None:
        """Begin without tensors. `take` is asked for the bytes of large ones; None allows all."""
        self.fixed: dict[str, Value] = {}
        self._backend = backend
        self._facts = facts
        self._batch = batch
        self._take = take or (lambda _: True)
        self._tensors: dict[tuple[str, tuple[int, ...]], Value] = {}

    def reserve(self, beams: int, frames: int) -> bool:
        """Take the memory of searches with so many beams over so many frames; return false if it is refused."""
        shape, dtype = self._cross_shape(frames), self._backend.dtype
        names = cache_names("cross", self._facts.layers)
        fixed: dict[str, Layout] = {name: (shape, dtype(DECODER_WITH_PAST, name)) for name in names}
        fixed[ENCODER_ATTENTION_MASK] = ((self._batch, frames), np.dtype(np.int64))
        if not self._take(size_of(fixed.values()) + self._cache_size(beams)):
            return False
        self.fixed = {name: self._backend.allocate(*layout) for name, layout in fixed.items()}
        return True

    def written(self, name: str, array: NDArray[np.int64] | NDArray[np.bool_]) -> Value:
        """Return the input `name` of a step, with `array` written into it."""
        tensor = self._tensor(name, array.shape, array.dtype)
        self._backend.write(tensor, np.ascontiguousarray(array))
        return tensor

    def outputs(self, names: Sequence[str], beams: int) -> Mapping[str, Value] | None:
        """Return the tensors that the outputs `names` of a step of one token with so many beams are written to.

        Returns:
            None if their memory is refused; logits take much.
        """
        facts, rows = self._facts, (self._batch, beams, 1)
        widths = {LOGITS: facts.vocabulary.count, TOP_LOGPROBS: facts.top_k, TOP_IDS: facts.top_k}
        kinds = {TOP_IDS: np.dtype(np.int64)}
        layouts = {name: ((*rows, widths[name]), kinds.get(name, np.dtype(np.float32))) for name in names}
        missing = [layout for name, layout in layouts.items() if (name, layout[0]) not in self._tensors]
        if missing and not self._take(size_of(missing)):
            return None
        return {name: self._tensor(name, *layout) for name, layout in layouts.items()}

    def _cross_shape(self, frames: int) -> tuple[int, ...]:
        """Return the shape of keys and values of the cross-attention."""
        return self._batch, self._facts.heads, frames, self._facts.head_dim

    def _cache_size(self, beams: int) -> int:  # noqa: ARG002 - of subclasses
        """Return the bytes of the self-attention caches that any search with so many beams needs."""
        return 0

    def _cache_dtypes(self) -> list[np.dtype[Any]]:
        """Return the dtypes of the self-attention cache's tensors."""
        return [self._backend.dtype(DECODER_WITH_PAST, name) for name in cache_names("past", self._facts.layers)]

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Value:
        if (name, shape) not in self._tensors:
            self._tensors[name, shape] = self._backend.allocate(shape, dtype)
        return self._tensors[name, shape]


def size_of(layouts: Iterable[Layout]) -> int:
    """Return the bytes of tensors."""
    return sum(prod(shape) * dtype.itemsize for shape, dtype in layouts)
