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
from .cache import Binding, Tokens

_ROOM = 64
"""Tokens that there is room for at first, unless a sequence cannot be so long; it doubles."""


class InPlaceCache:
    """Keys and values [2 × layers, batch × slots, heads, room, head_dim]. See `SelfAttentionCache`."""

    def __init__(self, engine: Engine, facts: DecoderFacts, batch: int, longest: int | None = None) -> None:
        """Start 0 long; of sequences of at most `longest` tokens it never sees the last one."""
        room = _ROOM if longest is None else min(_ROOM, longest - 1)
        self._engine = engine
        self._heads, self._head_dim = facts.heads, facts.head_dim
        self._layers = facts.layers
        self._length = self._new_length = 0
        self._slots = np.zeros((batch, 1), dtype=np.int64)
        self._rows = np.arange(batch)[:, None]
        # Which slot wrote what is at a position; at each of them, every slot writes once.
        self._writers = np.zeros((batch, 1, room), dtype=np.int32)
        self._input_ids = np.zeros((batch, 1, 0), dtype=np.int64)
        self._past_length = np.zeros(1, dtype=np.int64)
        self._binding: Binding | None = None
        self._allocate(room)

    def bind(self, input_ids: Tokens, beam_idx: Tokens) -> Binding:
        """See `SelfAttentionCache.bind`."""
        tokens = input_ids.shape[2]
        if beam_idx.shape[1] != self._slots.shape[1]:
            self._take(beam_idx)
        else:
            self._continue(beam_idx)
        self._new_length = self._length + tokens
        self._make_room()
        self._writers[:, :, self._length : self._new_length] = np.arange(self._slots.shape[1])[:, None]
        if self._binding is None or self._input_ids.shape != input_ids.shape:
            self._input_ids = np.empty_like(input_ids)
            own = {INPUT_IDS: self._engine.share(self._input_ids), PAST_LENGTH: self._engine.share(self._past_length)}
            self._binding = Binding(own | self._past, into=self._present)
        self._input_ids[self._rows, self._slots] = input_ids
        self._past_length[0] = self._length
        return self._binding

    def by_beam(self, found: NDArray[Any]) -> NDArray[Any]:
        """See `SelfAttentionCache.by_beam`."""
        in_order: NDArray[Any] = found[self._rows, self._slots]
        return in_order

    def advance(self, _: Mapping[str, Value]) -> None:
        """See `SelfAttentionCache.advance`."""
        self._length = self._new_length

    def keep(self, rows: NDArray[np.int64]) -> None:
        """See `SelfAttentionCache.keep`."""
        self._slots, self._writers = self._slots[rows], self._writers[rows]
        self._rows = np.arange(len(rows))[:, None]
        slots = self._slots.shape[1]
        self._move((rows[:, None] * slots + np.arange(slots)).flatten(), self._writers.shape[2])

    def _continue(self, beam_idx: Tokens) -> None:
        """Give every beam the slot of the one that it continues, or a copy of it."""
        continued = self._slots[self._rows, beam_idx]
        for row, slots in enumerate(continued.tolist()):
            if len(set(slots)) < len(slots):
                continued[row] = self._parted(row, slots)
        self._slots = continued

    def _parted(self, row: int, slots: list[int]) -> list[int]:
        """A slot for each beam of an utterance, where some have the same one."""
        writers = self._writers[row, :, : self._length]
        free = sorted(set(range(len(slots))).difference(slots))
        taken = set[int]()
        for beam, source in enumerate(slots):
            if source not in taken:
                taken.add(source)
                continue
            differs = writers[free] != writers[source]
            parted = np.where(differs.any(axis=1), differs.argmax(axis=1), self._length)
            nearest = int(parted.argmax())
            target, begin = free.pop(nearest), int(parted[nearest])
            writers[target, begin:] = writers[source, begin:]
            past = self._storage[:, row * len(slots) : (row + 1) * len(slots), :, begin : self._length]
            past[:, target] = past[:, source]
            slots[beam] = target
        return slots

    def _take(self, beam_idx: Tokens) -> None:
        """Start again with another number of beams, each with what the one that it continues has seen."""
        batch, beams = beam_idx.shape
        continued = self._slots[self._rows, beam_idx]
        self._writers = self._writers[self._rows, continued]
        sources = (self._rows * self._slots.shape[1] + continued).flatten()
        self._slots = np.tile(np.arange(beams), (batch, 1))
        self._move(sources, self._writers.shape[2])

    def _make_room(self) -> None:
        room = self._writers.shape[2]
        if self._new_length > room:
            larger = max(2 * room, self._new_length)
            self._writers = np.pad(self._writers, ((0, 0), (0, 0), (0, larger - room)))
            self._move(slice(None), larger)

    def _move(self, sources: NDArray[np.int64] | slice, room: int) -> None:
        """Allocate again, for so many tokens, with the rows `sources` of what there is; a slice is not copied twice."""
        before = self._storage
        self._allocate(room)
        self._storage[:, :, :, : self._length] = before[:, sources, :, : self._length]

    def _allocate(self, room: int) -> None:
        shape = (2 * self._layers, self._slots.size, self._heads, room, self._head_dim)
        self._storage = np.empty(shape, dtype=np.float32)
        tensors = [self._engine.share(tensor) for tensor in self._storage]
        self._past = dict(zip(cache_names("past", self._layers), tensors, strict=True))
        self._present = dict(zip(cache_names("present", self._layers), tensors, strict=True))
        self._binding = None
