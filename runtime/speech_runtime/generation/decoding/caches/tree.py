"""A self-attention cache that all beams of an utterance share: nothing in it is ever moved.

Each token of each beam has a slot of its own. A beam is the set of the slots of its tokens, kept on the host, and a
mask tells the graph which slots a token sees. A beam that is continued twice becomes two sets; a beam that ends leaves
slots behind that nobody sees any more.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....backends.base import Backend, Value
from ....bundle.graph_io import INPUT_IDS, POSITION_IDS, SLOT_MASK, WRITE_SLOT, cache_names
from ....bundle.model_facts import DecoderFacts
from ...search.base import PerBeam, Tokens
from .base import Binding
from .step_tensors import Layout, StepTensors, size_of

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
        self, backend: Backend, facts: DecoderFacts, batch: int, take: Callable[[int], bool] | None = None
    ) -> None:
        """See `StepTensors`."""
        super().__init__(backend, facts, batch, take)
        self.finite = True
        self._caches: dict[int, list[Value]] = {}

    def reserve_slots(self, slots: int) -> bool:
        """Allocate a cache with so many slots, of finite numbers; return false if its memory is refused."""
        if slots not in self._caches:
            layers = self._layers(slots)
            if not self._take(size_of(layers)):
                return False
            self._caches[slots] = [self._backend.allocate(*layout) for layout in layers]
            self.fill(slots)
        return True

    def cache(self, slots: int) -> Sequence[Value]:
        """Return the keys and values with so many slots, [batch, slots, heads · head_dim] each."""
        return self._caches[slots]

    def fill(self, slots: int, states: Iterable[NDArray[Any]] = ()) -> None:
        """Write `states` [batch, used, heads · head_dim] to the first slots of a cache, and zeros to all others."""
        places = zip(self._caches[slots], self._layers(slots), strict=True)
        for (tensor, (shape, dtype)), state in zip_longest(places, states):
            filled = np.zeros(shape, dtype=dtype)
            if state is not None:
                filled[:, : state.shape[1]] = state
            self._backend.write(tensor, filled)

    def contents(self, slots: int) -> Iterable[NDArray[Any]]:
        """Yield the numbers in a cache, key and value of each layer."""
        return map(self._backend.download, self._caches[slots])

    def apart(self, utterances: int) -> "TreeBuffers":
        """Return new buffers for so many utterances, which nobody lends: they are freed after the search."""
        return TreeBuffers(self._backend, self._facts, utterances)

    def make_finite(self) -> None:
        """Overwrite all numbers that may not be finite."""
        for slots in self._caches:
            self.fill(slots)
        self.finite = True

    def _cross_shape(self, frames: int) -> tuple[int, ...]:
        """See `StepTensors`: as the products return them."""
        return self._batch, frames, self._facts.heads * self._facts.head_dim

    def _layers(self, slots: int) -> list[Layout]:
        shape = self._batch, slots, self._facts.heads * self._facts.head_dim
        return [(shape, dtype) for dtype in self._cache_dtypes()]


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
        self._slots, self._first_slots = 0, _first_slots(beams, longest)
        self._used = self._new_used = 0
        self._length = self._new_length = 0
        self._seen = np.zeros((batch, 1, 0), dtype=np.bool_)
        self._bindings: dict[tuple[int, ...], Binding] = {}

    def bind(self, input_ids: Tokens, beam_idx: PerBeam) -> Binding:
        """See `SelfAttentionCache.bind`."""
        batch, beams, tokens = input_ids.shape
        self._new_used, self._new_length = self._used + beams * tokens, self._length + tokens
        if self._new_used > self._slots:
            self._get_slots(self._new_used)
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

    def select_utterances(self, utterances: Sequence[int]) -> None:
        """See `SelfAttentionCache.select_utterances`."""
        before = self._buffers
        self._buffers = before.apart(len(utterances))
        self._seen = self._seen[utterances]
        if self._slots:
            self._buffers.reserve_slots(self._slots)
            self._buffers.fill(self._slots, (states[utterances] for states in before.contents(self._slots)))

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

    def _get_slots(self, needed: int) -> None:
        """Get the first slots, or twice as many as before, or as many as are needed, with the contents of the old."""
        before, buffers = self._slots, self._buffers
        self._slots = max(2 * before, self._first_slots, _rounded(needed))
        if not buffers.reserve_slots(self._slots):  # no memory is left for recordings: go on without
            self._buffers, self._recorded = buffers.apart(len(self._seen)), False
            self._buffers.reserve_slots(self._slots)
        if self._used:
            self._buffers.fill(self._slots, (states[:, : self._used] for states in buffers.contents(before)))
        self._seen = np.pad(self._seen, ((0, 0), (0, 0), (0, self._slots - before)))


def _first_slots(beams: int, longest: int | None) -> int:
    """Return the number of slots to begin with; there are few different ones, as each has recordings of its own."""
    tokens = ROOM if longest is None else min(ROOM, 1 << max(longest - 2, 0).bit_length())
    return _rounded(tokens * beams)


def _rounded(slots: int) -> int:
    return -(-slots // _MULTIPLE) * _MULTIPLE
