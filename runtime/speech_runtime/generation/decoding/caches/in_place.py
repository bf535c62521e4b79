"""A self-attention cache that a step writes into, in the host's memory.

A beam keeps its slot while it is continued: beams are reordered in the list of slots, not in the cache. Data is copied
only if a beam is continued more than once, into the slot of a beam that ended. Both slots hold the same up to the
position where the two beams parted, so the copy begins there.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ....backends.base import Backend, Value
from ....bundle.graph_io import INPUT_IDS, PAST_LENGTH, cache_names
from ....bundle.model_facts import DecoderFacts
from ...search.base import PerBeam, Tokens
from .base import Binding

_ROOM = 64
"""Number of tokens that the cache has room for at first; fewer if all sequences are shorter. It doubles when full."""


class Copy(NamedTuple):
    """A copy from one slot to another, of all positions from `begin` on."""

    source: int
    target: int
    begin: int


class BeamSlots:
    """Slots of the beams of one utterance.

    Attributes:
        slots: Slot of each beam.
    """

    def __init__(self, beams: int) -> None:
        """Start with empty slots."""
        self.slots = list(range(beams))
        self._same = [[0] * beams for _ in range(beams)]  # position up to which two slots hold the same

    def widened(self, beam_idx: Sequence[int], length: int) -> Self:
        """Return slots in the order of any number of beams, each with the contents of the beam that it continues."""
        continued = [self.slots[beam] for beam in beam_idx]
        new = type(self)(len(continued))
        new._same = [[length if one == other else self._same[one][other] for other in continued] for one in continued]
        return new

    def follow(self, beam_idx: Sequence[int], length: int) -> Sequence[Copy]:
        """Give every beam the slot of the beam that it continues; further continuations of a beam get copies of it.

        A copy goes to the slot of a beam that ended, the one that has most in common with it.

        Args:
            beam_idx: Beams that are continued, one for each slot.
            length: Number of positions in use.

        Returns:
            The copies to make.
        """
        slots = self.slots = [self.slots[beam] for beam in beam_idx]
        taken = set(slots)
        if len(taken) == len(slots):
            return ()
        free = [slot for slot in range(len(slots)) if slot not in taken]
        copies = []
        for beam, source in enumerate(slots):
            if source in taken:
                taken.remove(source)
                continue
            same = self._same[source]
            target = max(free, key=same.__getitem__)
            free.remove(target)
            copies.append(Copy(source, target, same[target]))
            self._equate(source, target, length)
            slots[beam] = target
        return copies

    def _equate(self, source: int, target: int, length: int) -> None:
        same = self._same
        for slot, row in enumerate(same):
            row[target] = same[target][slot] = same[source][slot]
        same[source][target] = same[target][source] = length


class InPlaceCache:
    """Keys and values [2 × layers, rows, heads, room, head_dim], a row for each slot. See `SelfAttentionCache`.

    The rows in use come first: those of the first utterance, then those of the second, and so on.
    """

    def __init__(self, backend: Backend, facts: DecoderFacts, batch: int, longest: int | None = None) -> None:
        """Start empty. The last of at most `longest` tokens of a sequence is not decoded, and needs no room."""
        self._backend = backend
        self._heads, self._head_dim = facts.heads, facts.head_dim
        self._layers = facts.layers
        self._ragged = facts.ragged
        self._utterances = [BeamSlots(1) for _ in range(batch)]
        self._lengths = [0] * batch
        self._new_tokens = 0
        self._binding: Binding | None = None
        self._storage = self._allocated(batch, _ROOM if longest is None else min(_ROOM, longest - 1))

    def bind(self, input_ids: Tokens, beam_idx: PerBeam) -> Binding:
        """See `SelfAttentionCache.bind`."""
        binding = self._make_ready(beam_idx, input_ids.shape[2])
        self._by_slot[self._order()] = input_ids.reshape(len(self._by_slot), -1)
        return binding

    def append_token(self, tokens: PerBeam, beam_idx: PerBeam) -> Binding:
        """See `SelfAttentionCache.append_token`."""
        binding, row = self._make_ready(beam_idx, 1), 0
        for utterance, chosen in zip(self._utterances, tokens, strict=True):
            for slot, token in zip(utterance.slots, chosen, strict=True):
                self._tokens[row + slot] = token
            row += len(chosen)
        return binding

    @property
    def slots(self) -> PerBeam:
        """See `SelfAttentionCache.slots`."""
        return [utterance.slots for utterance in self._utterances]

    def commit(self, _: Mapping[str, Value]) -> None:
        """See `SelfAttentionCache.commit`."""
        self._lengths = [length + self._new_tokens for length in self._lengths]

    def select_utterances(self, utterances: Sequence[int]) -> None:
        """See `SelfAttentionCache.select_utterances`."""
        for target, source in enumerate(utterances):
            if target != source:
                used = self._storage[:, :, :, : self._lengths[source]]
                used[:, self._rows(target)] = used[:, self._rows(source)]
        self._utterances = [self._utterances[row] for row in utterances]
        self._lengths = [self._lengths[row] for row in utterances]
        self._binding = None

    def join(self, newcomers: Self, beams: int, capacity: int) -> None:
        """Add the utterances of another cache behind these, all with so many beams.

        Where memory is allocated for that, there is room for `capacity` utterances.
        """
        for cache in (self, newcomers):
            if cache._beams != beams:  # only the prompts have been decoded: the beams are alike
                cache._widen([[0] * beams] * len(cache._utterances))
        count, more = len(self._utterances), len(newcomers._utterances)
        longest, rows = max(newcomers._lengths), (count + more) * self._beams
        if rows > self._storage.shape[1] or longest >= self._room:
            self._move(slice(count * self._beams), max(capacity, count + more), max(self._room, 2 * longest))
        used = self._storage[:, count * self._beams : rows, :, :longest]
        used[...] = newcomers._storage[:, : more * self._beams, :, :longest]
        self._utterances += newcomers._utterances
        self._lengths += newcomers._lengths
        self._binding = None

    @property
    def _beams(self) -> int:
        return len(self._utterances[0].slots)

    @property
    def _room(self) -> int:
        room: int = self._storage.shape[3]
        return room

    def _rows(self, utterance: int) -> slice:
        return slice(utterance * self._beams, (utterance + 1) * self._beams)

    def _make_ready(self, beam_idx: PerBeam, tokens: int) -> Binding:
        """Reorder the beams and return the binding of a step of so many tokens, with room for them."""
        if len(beam_idx[0]) == self._beams:
            self._reorder(beam_idx)
        else:
            self._widen(beam_idx)
        needed = max(self._lengths) + tokens
        if needed > self._room:
            capacity = self._storage.shape[1] // self._beams
            self._move(slice(len(self._utterances) * self._beams), capacity, max(2 * self._room, needed))
        if self._binding is None or self._new_tokens != tokens:
            self._binding = self._bind(tokens)
        self._past_length[:] = self._lengths if self._ragged else self._lengths[0]
        return self._binding

    def _reorder(self, beam_idx: PerBeam) -> None:
        """Give every beam the slot of the beam that it continues, or a copy of it."""
        row = 0
        for utterance, continued, length in zip(self._utterances, beam_idx, self._lengths, strict=True):
            for source, target, begin in utterance.follow(continued, length):
                past = self._storage[:, row : row + len(continued), :, begin:length]
                past[:, target] = past[:, source]
            row += len(continued)

    def _widen(self, beam_idx: PerBeam) -> None:
        """Allocate for another number of beams, and copy to each the past of the beam that it continues."""
        sources = [
            row * self._beams + utterance.slots[beam]
            for row, (utterance, taken) in enumerate(zip(self._utterances, beam_idx, strict=True))
            for beam in taken
        ]
        taken = zip(self._utterances, beam_idx, self._lengths, strict=True)
        self._utterances = [utterance.widened(beams, length) for utterance, beams, length in taken]
        self._move(np.array(sources), len(self._utterances), self._room)

    def _order(self) -> list[int]:
        """Return the row of the storage that each beam has, utterance after utterance."""
        return [row * self._beams + slot for row, utterance in enumerate(self._utterances) for slot in utterance.slots]

    def _move(self, sources: NDArray[np.int64] | slice, capacity: int, room: int) -> None:
        """Allocate for `capacity` utterances of `room` tokens, and copy the rows `sources`; a slice is copied once."""
        longest = max(self._lengths)
        kept = self._storage[:, sources, :, :longest]
        self._storage = self._allocated(capacity * self._beams, room)
        self._storage[:, : kept.shape[1], :, :longest] = kept

    def _allocated(self, rows: int, room: int) -> NDArray[np.float32]:
        self._binding = None
        return np.empty((2 * self._layers, rows, self._heads, room, self._head_dim), dtype=np.float32)

    def _bind(self, tokens: int) -> Binding:
        """Return a new binding of a step of so many tokens."""
        self._new_tokens = tokens
        input_ids = np.empty((len(self._utterances), self._beams, tokens), dtype=np.int64)
        self._by_slot = input_ids.reshape(-1, tokens)
        self._tokens = input_ids.reshape(-1).data
        self._past_length = np.empty(len(self._utterances) if self._ragged else 1, dtype=np.int64)
        tensors = [self._backend.share(tensor[: len(self._by_slot)]) for tensor in self._storage]
        past = dict(zip(cache_names("past", self._layers), tensors, strict=True))
        present = dict(zip(cache_names("present", self._layers), tensors, strict=True))
        own = {INPUT_IDS: self._backend.share(input_ids), PAST_LENGTH: self._backend.share(self._past_length)}
        return Binding(input_ids.shape, own | past, into=present)
