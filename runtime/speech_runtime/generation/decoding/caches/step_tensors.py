"""Tensors of a step that keep their addresses, so that a step can be recorded."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ....backends.base import Backend, Value
from ....bundle.graph_io import DECODER_WITH_PAST, LOGITS, TOP_IDS, TOP_LOGPROBS, cache_names
from ....bundle.model_facts import DecoderFacts


class StepTensors:
    """Inputs and outputs of a step, for one search at a time, of `batch` utterances.

    Each tensor is allocated at its first use, and keeps its address.

    Attributes:
        fixed: Inputs that stay the same in a search, by name (mask and cross-attention cache), where `StepBufferPool`
            lends the tensors; empty elsewhere.
    """

    def __init__(
        self, backend: Backend, facts: DecoderFacts, batch: int, fixed: Mapping[str, Value] | None = None
    ) -> None:
        self.fixed = fixed or {}
        self._backend = backend
        self._facts = facts
        self._batch = batch
        self._tensors: dict[tuple[str, tuple[int, ...]], Value] = {}

    def written(self, name: str, array: NDArray[np.int64] | NDArray[np.bool_]) -> Value:
        """Return the input `name` of a step, with `array` written into it."""
        tensor = self._tensor(name, array.shape, array.dtype)
        self._backend.write(tensor, np.ascontiguousarray(array))
        return tensor

    def outputs(self, names: Sequence[str], beams: int) -> Mapping[str, Value]:
        """Return the tensors that the outputs `names` of a step of one token with so many beams are written to."""
        widths = {LOGITS: self._facts.vocab_size, TOP_LOGPROBS: self._facts.top_k, TOP_IDS: self._facts.top_k}
        kinds = {TOP_IDS: np.dtype(np.int64)}
        return {
            name: self._tensor(name, (self._batch, beams, 1, widths[name]), kinds.get(name, np.dtype(np.float32)))
            for name in names
        }

    def _cache_dtypes(self) -> list[np.dtype[np.generic]]:
        """Return the dtypes of the self-attention cache's tensors."""
        return [self._backend.dtype(DECODER_WITH_PAST, name) for name in cache_names("past", self._facts.layers)]

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Value:
        if (name, shape) not in self._tensors:
            self._tensors[name, shape] = self._backend.allocate(shape, dtype)
        return self._tensors[name, shape]
