"""Buffers of recorded steps, lent to one search after another: a recording refers to the addresses of its tensors."""

import threading
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

from ....backends.base import Backend, Value
from ....backends.cuda.graphs import frame_bucket
from ....bundle.graph_io import (
    DECODER_INIT,
    DECODER_WITH_PAST,
    ENCODER_ATTENTION_MASK,
    ENCODER_HIDDEN_STATES,
    cache_names,
)
from ....bundle.model_facts import DecoderFacts
from .static import StepBuffers
from .tree import TreeBuffers

Lent = StepBuffers | TreeBuffers


class StepBufferPool:
    """Buffers for as many sizes as the backend records; a search of another size, or beside another one, gets none."""

    def __init__(self, backend: Backend, facts: DecoderFacts) -> None:
        self._backend = backend
        self._facts = facts
        self._left = backend.recordings
        self._free: dict[tuple[int, int], list[Lent]] = {}
        self._returned: deque[tuple[tuple[int, int], Lent]] = deque()
        self._lock = threading.Lock()

    def lend(self, borrower: object, encoder_hidden_states: Value, encoder_attention_mask: Value) -> Lent | None:
        """Return buffers with the cross-attention cache in them, or None if none are left.

        They belong to `borrower` until Python collects it. Frames are padded to the size of their bucket, which
        changes nothing for a decoder that applies their mask.
        """
        mask = self._backend.download(encoder_attention_mask)
        batch, frames = mask.shape
        held = frame_bucket(frames) if self._facts.masks_audio else frames
        buffers = self._take(batch, held)
        if buffers is None:
            return None
        # Python may collect `borrower` at any time, in a thread that holds the lock: appending to a deque needs none.
        weakref.finalize(borrower, self._returned.append, ((batch, held), buffers)).atexit = False
        if held > frames:
            states = self._backend.download(encoder_hidden_states)
            encoder_hidden_states = self._backend.upload(_padded(states, held))
        self._backend.write(buffers.fixed[ENCODER_ATTENTION_MASK], _padded(mask, held))
        cross = {name: buffers.fixed[name] for name in cache_names("cross", self._facts.layers)}
        self._backend.prepare(DECODER_INIT, {ENCODER_HIDDEN_STATES: encoder_hidden_states}, [], cross)()
        return buffers

    def _take(self, batch: int, frames: int) -> Lent | None:
        with self._lock:
            while self._returned:
                sizes, buffers = self._returned.popleft()
                self._free.setdefault(sizes, []).append(buffers)
            free = self._free.get((batch, frames))
            taken = free.pop() if free else None
            if taken is None:
                if not self._left:
                    return None
                self._left -= 1
        if isinstance(taken, TreeBuffers) and not taken.finite:
            taken.make_finite()
        return taken or self._new(batch, frames)

    def _new(self, batch: int, frames: int) -> Lent:
        facts, allocate = self._facts, self._backend.allocate
        shape: tuple[int, ...] = (batch, facts.heads, frames, facts.head_dim)
        if facts.cache == "tree":
            shape = (batch, frames, facts.heads * facts.head_dim)
        names = cache_names("cross", facts.layers)
        fixed = {name: allocate(shape, self._backend.dtype(DECODER_WITH_PAST, name)) for name in names}
        fixed[ENCODER_ATTENTION_MASK] = allocate((batch, frames), np.dtype(np.int64))
        return (TreeBuffers if facts.cache == "tree" else StepBuffers)(self._backend, facts, batch, fixed)


def _padded(states: NDArray[np.generic], frames: int) -> NDArray[np.generic]:
    """Return states [batch, frames, …] padded with zeros to so many `frames`."""
    more = [(0, 0)] * states.ndim
    more[1] = (0, frames - states.shape[1])
    return np.pad(states, more)
