"""Buffers of recorded steps, lent to one search after another: a recording refers to the addresses of its tensors."""

import logging
import threading
import weakref
from collections import deque
from typing import NamedTuple

from ....backends.base import Backend, Value
from ....backends.cuda.recorded_sizes import frame_bucket
from ....bundle.graph_io import (
    DECODER_INIT,
    ENCODER_ATTENTION_MASK,
    ENCODER_HIDDEN_STATES,
    cache_names,
)
from ....bundle.model_facts import DecoderFacts
from .cross import padded
from .static import StepBuffers
from .tree import TreeBuffers

logger = logging.getLogger(__name__)


Lent = StepBuffers | TreeBuffers


class Size(NamedTuple):
    """A size of steps: the numbers of utterances, beams, and frames of audio."""

    batch: int
    beams: int
    frames: int


class MemoryBound:
    """Bytes that the buffers of all sizes may take; they are never freed, because recordings are not."""

    def __init__(self, size: int | None) -> None:
        """Begin with `size` bytes; None for no bound."""
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take `size` bytes, or return false if they are not left."""
        with self._lock:
            if self._left is not None:
                if size > self._left:
                    return False
                self._left -= size
        return True


class StepBufferPool:
    """Buffers for as many sizes as the backend records; a search of another size, or beside another one, gets none."""

    def __init__(self, backend: Backend, facts: DecoderFacts) -> None:
        self._backend = backend
        self._facts = facts
        self._left = backend.recordings
        self._memory = MemoryBound(backend.recording_memory)
        self._free: dict[Size, list[Lent]] = {}
        self._returned: deque[tuple[Size, Lent]] = deque()
        self._lock = threading.Lock()

    def lend(
        self, borrower: object, encoder_hidden_states: Value, encoder_attention_mask: Value, beams: int
    ) -> Lent | None:
        """Return buffers with the cross-attention cache in them, or None if none are left.

        They belong to `borrower` until Python collects it. Frames are padded to the size of their bucket, which
        changes nothing for a decoder that applies their mask.
        """
        mask = self._backend.download(encoder_attention_mask)
        batch, frames = mask.shape
        held = frame_bucket(frames) if self._facts.masks_audio else frames
        size = Size(batch, beams, held)
        buffers = self._take(size)
        if buffers is None:
            return None
        # Python may collect `borrower` at any time, in a thread that holds the lock: appending to a deque needs none.
        weakref.finalize(borrower, self._returned.append, (size, buffers)).atexit = False
        if held > frames:
            states = self._backend.download(encoder_hidden_states)
            encoder_hidden_states = self._backend.upload(padded(states, held))
        self._backend.write(buffers.fixed[ENCODER_ATTENTION_MASK], padded(mask, held))
        cross = {name: buffers.fixed[name] for name in cache_names("cross", self._facts.layers)}
        self._backend.prepare(DECODER_INIT, {ENCODER_HIDDEN_STATES: encoder_hidden_states}, [], cross)()
        return buffers

    def _take(self, size: Size) -> Lent | None:
        with self._lock:
            while self._returned:
                returned, buffers = self._returned.popleft()
                self._free.setdefault(returned, []).append(buffers)
            free = self._free.get(size)
            taken = free.pop() if free else None
            if taken is None:
                if not self._left:
                    return None
                self._left -= 1
        if taken is not None:
            return _usable(taken)
        kind = TreeBuffers if self._facts.cache == "tree" else StepBuffers
        buffers = kind(self._backend, self._facts, size.batch, self._memory.take)
        if buffers.reserve(size.beams, size.frames):
            return buffers
        with self._lock:
            self._left += 1
        logger.debug("steps of %s are not recorded: their caches exceed cuda_graph_memory", size)
        return None


def _usable(buffers: Lent) -> Lent:
    """Return buffers without what would spoil another search."""
    if isinstance(buffers, TreeBuffers) and not buffers.finite:
        buffers.make_finite()
    return buffers
