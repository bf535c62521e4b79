"""The tensors of a step with a static cache, each where it is for good."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ....backends.base import Backend, Value
from ....bundle.graph_io import DECODER_WITH_PAST, LOGITS, TOP_IDS, TOP_LOGPROBS, cache_names
from ....bundle.model_facts import DecoderFacts

Tensors = dict[str, Value]


class StepMemory:
    """Device memory of one search at a time, of `batch` utterances; nothing of a search is in it for the next one.

    Each tensor is made when it is asked for first.
    """

    def __init__(self, backend: Backend, facts: DecoderFacts, batch: int) -> None:
        self._backend = backend
        self._facts = facts
        self._batch = batch
        self._caches: dict[tuple[int, int], list[Value]] = {}
        self._tensors: dict[tuple[str, tuple[int, ...]], Value] = {}

    def past(self, beams: int, turn: int) -> Tensors:
        """The cache of so many beams, of the two the one that is numbered `turn`, as inputs."""
        return self._named("past", beams, turn)

    def present(self, beams: int, turn: int) -> Tensors:
        """The same, as outputs."""
        return self._named("present", beams, turn)

    def written(self, name: str, array: NDArray[np.int64]) -> Value:
        """The input `name` of a step, with `array` in it."""
        tensor = self._tensor(name, array.shape, array.dtype)
        self._backend.write(tensor, np.ascontiguousarray(array))
        return tensor

    def outputs(self, names: Sequence[str], beams: int) -> Mapping[str, Value]:
        """Where the outputs `names` of a step of so many beams go."""
        widths = {LOGITS: self._facts.vocab_size, TOP_LOGPROBS: self._facts.top_k, TOP_IDS: self._facts.top_k}
        kinds = {TOP_IDS: np.dtype(np.int64)}
        return {
            name: self._tensor(name, (self._batch, beams, 1, widths[name]), kinds.get(name, np.dtype(np.float32)))
            for name in names
        }

    def of_rows(self, rows: NDArray[np.int64], beams: int, turn: int) -> "StepMemory":
        """Other memory, with the cache of some utterances in it."""
        taken = StepMemory(self._backend, self._facts, len(rows))
        kept = self.past(beams, turn)
        for name, tensor in taken.past(beams, turn).items():
            self._backend.write(tensor, np.ascontiguousarray(self._backend.download(kept[name])[rows]))
        return taken

    def _named(self, kind: str, beams: int, turn: int) -> Tensors:
        if (beams, turn) not in self._caches:
            facts = self._facts
            shape = (self._batch, beams, facts.heads, facts.cache_length or 0, facts.head_dim)
            names = cache_names("past", facts.layers)
            dtypes = [self._backend.dtype(DECODER_WITH_PAST, name) for name in names]
            self._caches[beams, turn] = [self._backend.allocate(shape, dtype) for dtype in dtypes]
        return dict(zip(cache_names(kind, self._facts.layers), self._caches[beams, turn], strict=True))

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Value:
        if (name, shape) not in self._tensors:
            self._tensors[name, shape] = self._backend.allocate(shape, dtype)
        return self._tensors[name, shape]
