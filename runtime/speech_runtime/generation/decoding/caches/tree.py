"""A self-attention cache that all beams of an utterance share: nothing in it is ever moved.

Each token of each beam has a slot of its own. A beam is the set of the slots of its tokens, kept on the host, and a
mask tells the graph which slots a token sees. A beam that is continued twice becomes two sets; a beam that ends leaves
slots behind that nobody sees any more.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ....backends.base import Backend, Value
from ....bundle.graph_io import INPUT_IDS, POSITION_IDS, SLOT_MASK, WRITE_SLOT, cache_names
from ....bundle.model_facts import DecoderFacts
from ...search.base import PerBeam, Tokens
from .base import Binding
from .step_tensors import StepTensors

ROOM = 128
"""Number of tokens of each beam that there are slots for at first; fewer if all sequences are shorter."""

_MULTIPLE = 8
"""The number of slots is a multiple of this: kernels read the mask's rows in such pieces."""


class TreeBuffers(StepTensors):
    """Tensors of a step with a tree cache.

    Attributes:
        finite: False once a step may have written numbers that are not finite. Where attention hides such a slot it
            multiplies it by 0, and the product is not 0: the next search would be spoilt.
    """

    def __init__(
        self, backend: Backend, facts: DecoderFacts, batch: int, fixed: Mapping[str, Value] | None = None
    ) -> None:
        super().__init__(backend, facts, batch, fixed)
        self.finite = True
        self._caches: dict[int, list[Value]] = {}

    def cache(self, slots: int) -> list[Value]:
        """Return keys and values with so many slots, [batch, slots, heads · head_dim] each, of finite numbers."""
        if slots not in self._caches:
            shape = self._shape(slots)
            self._caches[slots] = [self._backend.allocate(shape, dtype) for dtype in self._cache_dtypes()]
            self._fill(slots)
        return self._caches[slots]

    def grown(self, before: int, slots: int, used: int) -> None:
        """Copy the first `used` of `before` slots to the cache with more `slots`."""
        for old, new in zip(self.cache(before), self.cache(slots), strict=True):
            self._write(new, slots, self._backend.download(old)[:, :used])

    def for_utterances(self, utterances: NDArray[np.int64], slots: int) -> "TreeBuffers":
        """Return other tensors, with these utterances of the cache of so many slots in them."""
        taken = TreeBuffers(self._backend, self._facts, len(utterances))
        for old, new in zip(self.cache(slots), taken.cache(slots), strict=True):
            taken._write(new, slots, self._backend.download(old)[utterances])
        return taken

    def make_finite(self) -> None:
        """Overwrite all numbers that may not be finite."""
        for slots in self._caches:
            self._fill(slots)
        self.finite = True

    def _fill(self, slots: int) -> None:
        zeros = {dtype: np.zeros(self._shape(slots), dtype=dtype) for dtype in set(self._cache_dtypes())}
        for tensor, dtype in zip(self._caches[slots], self._cache_dtypes(), strict=True):
            self._backend.write(tensor, zeros[dtype])

    def _write(self, tensor: Value, slots: int, states: NDArray[np.generic]) -> None:
        filled = np.zeros(self._shape(slots), dtype=states.dtype)
        filled[:, : states.shape[1]] = states
        self._backend.write(tensor, filled)

    def _shape(self, slots: int) -> tuple[int, int, int]:
        return self._batch, slots, self._facts.heads * self._facts.head_dim


class TreeCache:
    """Keys and values [batch, slots, heads · head_dim] in `TreeBuffers`. See `SelfAttentionCache`.

    It takes any number of tokens at once, for any number of beams, and gets more slots when all are used.
    """

    def __init__(
        self,
        buffers: TreeBuffers,
        facts: DecoderFacts,
        batch: int,
        beams: int = 1,
        longest: int | None = None,
        *,
        recorded: bool = False,
    ) -> None:
        """Start empty in `buffers`.

        Args:
            buffers: Tensors of a step.
            facts: Facts of the decoder.
            batch: Number of utterances.
            beams: Number of beams that the search will have.
            longest: Maximal length of a sequence, whose last token needs no slot; None if it is not known.
            recorded: If true, all outputs of steps of one token go to `buffers` too.
        """
        self._buffers = buffers
        self._layers = facts.layers
        self._recorded = recorded
        self._slots = _first_slots(beams, longest)
        self._used = self._new_used = 0
        self._length = self._new_length = 0
        self._seen = np.zeros((batch, 1, self._slots), dtype=np.bool_)
        self._bindings: dict[tuple[int, ...], Binding] = {}

    def bind(self, input_ids: Tokens, beam_idx: PerBeam) -> Binding:
        """See `SelfAttentionCache.bind`."""
        batch, beams, tokens = input_ids.shape
        self._new_used, self._new_length = self._used + beams * tokens, self._length + tokens
        if self._new_used > self._slots:
            self._grow(self._new_used)
        seen = self._seen[np.arange(batch)[:, None], beam_idx]
        mask = seen if tokens == 1 else np.repeat(seen, tokens, axis=1)
        mask[:, :, self._used : self._new_used] = np.kron(np.eye(beams), np.tri(tokens))
        self._seen = mask[:, tokens - 1 :: tokens]
        written = self._buffers.written
        inputs = {
            INPUT_IDS: written(INPUT_IDS, input_ids),
            POSITION_IDS: written(POSITION_IDS, np.tile(np.arange(self._length, self._new_length), beams)),
            WRITE_SLOT: written(WRITE_SLOT, np.full(batch, self._used)),
            SLOT_MASK: written(SLOT_MASK, mask),
        }
        return self._binding(input_ids.shape, inputs)

    def append_token(self, tokens: PerBeam, beam_idx: PerBeam) -> Binding:
        """See `SelfAttentionCache.append_token`."""
        return self.bind(np.array(tokens)[:, :, None], beam_idx)

    @property
    def slots(self) -> None:
        """See `SelfAttentionCache.slots`: the host puts the beams in order."""

    def commit(self, _: Mapping[str, Value]) -> None:
        """See `SelfAttentionCache.commit`."""
        self._used, self._length = self._new_used, self._new_length

    def select_utterances(self, utterances: NDArray[np.int64]) -> None:
        """See `SelfAttentionCache.select_utterances`."""
        self._buffers = self._buffers.for_utterances(utterances, self._slots)
        self._seen = self._seen[utterances]

    def _binding(self, shape: tuple[int, ...], inputs: Mapping[str, Value]) -> Binding:
        """Return the binding of a step of this shape.

        A recorded step has one for as long as there are slots. Any other gets a new one, and so new outputs: those of
        the step before may still be in use.
        """
        key = (*shape, self._slots)
        if key in self._bindings:
            return self._bindings[key]
        tensors = self._buffers.cache(self._slots)
        past = dict(zip(cache_names("past", self._layers), tensors, strict=True))
        present = dict(zip(cache_names("present", self._layers), tensors, strict=True))
        if not self._recorded or shape[2] > 1:
            return Binding(shape, {**inputs, **past}, into=present)
        places = partial(self._buffers.outputs, beams=shape[1])
        self._bindings[key] = Binding(shape, {**inputs, **past}, into=present, places=places)
        return self._bindings[key]

    def _grow(self, needed: int) -> None:
        """Get twice as many slots, or as many as are needed, with the contents of those in use."""
        before, self._slots = self._slots, max(2 * self._slots, _rounded(needed))
        if self._used:
            self._buffers.grown(before, self._slots, self._used)
        self._seen = np.pad(self._seen, ((0, 0), (0, 0), (0, self._slots - before)))


def _first_slots(beams: int, longest: int | None) -> int:
    """Return the number of slots to begin with; there are few different ones, as each has recordings of its own."""
    tokens = ROOM if longest is None else min(ROOM, 1 << max(longest - 2, 0).bit_length())
    return _rounded(tokens * beams)


def _rounded(slots: int) -> int:
    return -(-slots // _MULTIPLE) * _MULTIPLE
