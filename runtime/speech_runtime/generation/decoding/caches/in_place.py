"""A self-attention cache that a step writes into, in the host's memory.

A beam has a slot, which it keeps for as long as it is continued: the slots, not the caches, are put in order. Only
where a beam is continued more than once is something copied, into the slot of a beam that ended: from where the two
have parted, since up to there they are the same.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ....backends.base import Backend, Value
from ....bundle.graph_io import INPUT_IDS, PAST_LENGTH, cache_names
from ....bundle.model_facts import DecoderFacts
from ...search.candidates import Slots
from ...search.state import Rows, Tokens
from .beam_slots import BeamSlots
from .cache import Binding

_ROOM = 64
"""Tokens that there is room for at first, unless a sequence cannot be so long; it doubles."""


class InPlaceCache:
    """Keys and values [2 × layers, batch × slots, heads, room, head_dim]. See `SelfAttentionCache`."""

    def __init__(self, backend: Backend, facts: DecoderFacts, batch: int, longest: int | None = None) -> None:
        """Start 0 long; of sequences of at most `longest` tokens it never sees the last one."""
        self._backend = backend
        self._heads, self._head_dim = facts.heads, facts.head_dim
        self._layers = facts.layers
        self._length = self._new_length = 0
        self._utterances = [BeamSlots(1) for _ in range(batch)]
        self._past_length = np.zeros(1, dtype=np.int64)
        self._binding: Binding | None = None
        self._allocate(_ROOM if longest is None else min(_ROOM, longest - 1))

    def bind(self, input_ids: Tokens, beams: Rows) -> Binding:
        """See `SelfAttentionCache.bind`."""
        binding = self._make_ready(beams, input_ids.shape[2])
        self._by_slot[self._order()] = input_ids.reshape(len(self._by_slot), -1)
        return binding

    def go_on(self, tokens: Rows, beams: Rows) -> Binding:
        """See `SelfAttentionCache.go_on`."""
        binding, row = self._make_ready(beams, 1), 0
        for utterance, chosen in zip(self._utterances, tokens, strict=True):
            for slot, token in zip(utterance.slots, chosen, strict=True):
                self._tokens[row + slot] = token
            row += len(chosen)
        return binding

    @property
    def slots(self) -> Slots:
        """See `SelfAttentionCache.slots`."""
        return [utterance.slots for utterance in self._utterances]

    def advance(self, _: Mapping[str, Value]) -> None:
        """See `SelfAttentionCache.advance`."""
        self._length = self._new_length

    def keep(self, rows: NDArray[np.int64]) -> None:
        """See `SelfAttentionCache.keep`."""
        slots = len(self._utterances[0].slots)
        self._utterances = [self._utterances[row] for row in rows.tolist()]
        self._move((rows[:, None] * slots + np.arange(slots)).flatten(), self._room)

    def _make_ready(self, beams: Rows, tokens: int) -> Binding:
        """What a step reads and writes after these beams, with room for so many tokens."""
        if len(beams[0]) == len(self._utterances[0].slots):
            self._continue(beams)
        else:
            self._take(beams)
        self._new_length = self._length + tokens
        if self._new_length > self._room:
            self._move(slice(None), max(2 * self._room, self._new_length))
        if self._binding is None or self._by_slot.shape[1] != tokens:
            self._binding = self._bind(tokens)
        self._past_length[0] = self._length
        return self._binding

    def _continue(self, beams: Rows) -> None:
        """Give every beam the slot of the one that it continues, or a copy of it."""
        row = 0
        for utterance, continued in zip(self._utterances, beams, strict=True):
            for source, target, begin in utterance.follow(continued, self._length):
                past = self._storage[:, row : row + len(continued), :, begin : self._length]
                past[:, target] = past[:, source]
            row += len(continued)

    def _take(self, beams: Rows) -> None:
        """Start again with another number of beams, each with what the one that it continues has seen."""
        pairs = list(zip(self._utterances, beams, strict=True))
        before = len(self._utterances[0].slots)
        sources = [
            row * before + utterance.slots[beam] for row, (utterance, taken) in enumerate(pairs) for beam in taken
        ]
        self._utterances = [utterance.widened(taken, self._length) for utterance, taken in pairs]
        self._move(np.array(sources), self._room)

    def _order(self) -> list[int]:
        """The row of the storage that each beam has, utterance after utterance."""
        beams = len(self._utterances[0].slots)
        return [row * beams + slot for row, utterance in enumerate(self._utterances) for slot in utterance.slots]

    def _move(self, sources: NDArray[np.int64] | slice, room: int) -> None:
        """Allocate again, for so many tokens, with the rows `sources` of what there is; a slice is not copied twice."""
        before = self._storage
        self._allocate(room)
        self._storage[:, :, :, : self._length] = before[:, sources, :, : self._length]

    def _allocate(self, room: int) -> None:
        self._room = room
        rows = len(self._utterances) * len(self._utterances[0].slots)
        self._storage = np.empty((2 * self._layers, rows, self._heads, room, self._head_dim), dtype=np.float32)
        self._binding = None

    def _bind(self, tokens: int) -> Binding:
        """What a step of so many tokens reads and writes."""
        input_ids = np.empty((len(self._utterances), len(self._utterances[0].slots), tokens), dtype=np.int64)
        self._by_slot = input_ids.reshape(-1, tokens)
        self._tokens = input_ids.reshape(-1).data
        tensors = [self._backend.share(tensor) for tensor in self._storage]
        past = dict(zip(cache_names("past", self._layers), tensors, strict=True))
        present = dict(zip(cache_names("present", self._layers), tensors, strict=True))
        own = {INPUT_IDS: self._backend.share(input_ids), PAST_LENGTH: self._backend.share(self._past_length)}
        return Binding(input_ids.shape, own | past, into=present)
