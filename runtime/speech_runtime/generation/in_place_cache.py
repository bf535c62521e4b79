"""A self-attention cache that a step writes into, in the host's memory.

A beam has a slot, which it keeps for as long as it is continued: the slots, not the caches, are put in order. Only
where a beam is continued more than once is something copied, into the slot of a beam that ended: from where the two
have parted, since up to there they are the same.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import DecoderFacts
from ..contract import INPUT_IDS, PAST_LENGTH, cache_names
from ..engines.engine import Engine, Value
from .beam_slots import BeamSlots
from .cache import Binding, Tokens

_ROOM = 64
"""Tokens that there is room for at first, unless a sequence cannot be so long; it doubles."""


class InPlaceCache:
    """Keys and values [2 × layers, batch × slots, heads, room, head_dim]. See `SelfAttentionCache`."""

    def __init__(self, engine: Engine, facts: DecoderFacts, batch: int, longest: int | None = None) -> None:
        """Start 0 long; of sequences of at most `longest` tokens it never sees the last one."""
        self._engine = engine
        self._heads, self._head_dim = facts.heads, facts.head_dim
        self._layers = facts.layers
        self._length = self._new_length = 0
        self._utterances = [BeamSlots(1) for _ in range(batch)]
        self._past_length = np.zeros(1, dtype=np.int64)
        self._binding: Binding | None = None
        self._set_order()
        self._allocate(_ROOM if longest is None else min(_ROOM, longest - 1))

    def bind(self, input_ids: Tokens, beam_idx: Tokens) -> Binding:
        """See `SelfAttentionCache.bind`."""
        tokens = input_ids.shape[2]
        if beam_idx.size == self._order.size:
            self._continue(beam_idx)
        else:
            self._take(beam_idx)
        self._new_length = self._length + tokens
        if self._new_length > self._room:
            self._move(slice(None), max(2 * self._room, self._new_length))
        if self._binding is None or self._input_ids.shape != input_ids.shape:
            self._binding = self._bind(input_ids.shape)
        self._by_slot[self._order] = input_ids.reshape(-1, tokens)
        self._past_length[0] = self._length
        return self._binding

    def by_beam(self, found: NDArray[Any]) -> NDArray[Any]:
        """See `SelfAttentionCache.by_beam`; a copy."""
        return found.reshape(-1, *found.shape[2:]).take(self._order, axis=0).reshape(found.shape)

    def advance(self, _: Mapping[str, Value]) -> None:
        """See `SelfAttentionCache.advance`."""
        self._length = self._new_length

    def keep(self, rows: NDArray[np.int64]) -> None:
        """See `SelfAttentionCache.keep`."""
        slots = len(self._utterances[0].slots)
        self._utterances = [self._utterances[row] for row in rows.tolist()]
        self._set_order()
        self._move((rows[:, None] * slots + np.arange(slots)).flatten(), self._room)

    def _continue(self, beam_idx: Tokens) -> None:
        """Give every beam the slot of the one that it continues, or a copy of it."""
        slots, before = beam_idx.shape[1], [utterance.slots for utterance in self._utterances]
        for row, (utterance, beams) in enumerate(zip(self._utterances, beam_idx.tolist(), strict=True)):
            for source, target, begin in utterance.follow(beams, self._length):
                past = self._storage[:, row * slots : (row + 1) * slots, :, begin : self._length]
                past[:, target] = past[:, source]
        if before != [utterance.slots for utterance in self._utterances]:
            self._set_order()

    def _take(self, beam_idx: Tokens) -> None:
        """Start again with another number of beams, each with what the one that it continues has seen."""
        sources = self._order.reshape(len(beam_idx), -1)[np.arange(len(beam_idx))[:, None], beam_idx].flatten()
        pairs = zip(self._utterances, beam_idx.tolist(), strict=True)
        self._utterances = [utterance.widened(beams, self._length) for utterance, beams in pairs]
        self._set_order()
        self._move(sources, self._room)

    def _set_order(self) -> None:
        """Note which row of the storage each beam has, int64 [batch × beams]."""
        beams = len(self._utterances[0].slots)
        rows = enumerate(self._utterances)
        self._order = np.array([row * beams + slot for row, utterance in rows for slot in utterance.slots])

    def _move(self, sources: NDArray[np.int64] | slice, room: int) -> None:
        """Allocate again, for so many tokens, with the rows `sources` of what there is; a slice is not copied twice."""
        before = self._storage
        self._allocate(room)
        self._storage[:, :, :, : self._length] = before[:, sources, :, : self._length]

    def _allocate(self, room: int) -> None:
        self._room = room
        shape = (2 * self._layers, self._order.size, self._heads, room, self._head_dim)
        self._storage = np.empty(shape, dtype=np.float32)
        self._binding = None

    def _bind(self, shape: tuple[int, ...]) -> Binding:
        """What a step with tokens of `shape` reads and writes."""
        self._input_ids = np.empty(shape, dtype=np.int64)
        self._by_slot = self._input_ids.reshape(self._order.size, -1)
        tensors = [self._engine.share(tensor) for tensor in self._storage]
        past = dict(zip(cache_names("past", self._layers), tensors, strict=True))
        present = dict(zip(cache_names("present", self._layers), tensors, strict=True))
        own = {INPUT_IDS: self._engine.share(self._input_ids), PAST_LENGTH: self._engine.share(self._past_length)}
        return Binding(own | past, into=present)
