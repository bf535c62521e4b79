"""Memory of steps that a backend records: lent to one search after the other, since a recording is of its addresses."""

import threading
import weakref
from collections import deque
from dataclasses import dataclass

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
from .step_memory import StepMemory


@dataclass(frozen=True)
class Lent:
    """Memory that is one search's own until that is collected.

    Attributes:
        memory: of the step.
        fixed: the inputs that stay the same in a search, by name: mask and cross-attention cache.
    """

    memory: StepMemory
    fixed: dict[str, Value]


class StepMemories:
    """Memory for so many sizes as `backend` records; a search of another size, or beside another one, gets none."""

    def __init__(self, backend: Backend, facts: DecoderFacts) -> None:
        self._backend = backend
        self._facts = facts
        self._left = backend.recordings
        self._free: dict[tuple[int, int], list[Lent]] = {}
        self._returned: deque[tuple[tuple[int, int], Lent]] = deque()
        self._lock = threading.Lock()

    def lend(self, search: object, encoder_hidden_states: Value, encoder_attention_mask: Value) -> Lent | None:
        """Memory for `search`, with the cross-attention cache in it; None where there is none left.

        Frames are filled up to one of four numbers an octave, all the same to a decoder that heeds their mask.
        """
        mask = self._backend.download(encoder_attention_mask)
        batch, frames = mask.shape
        held = frame_bucket(frames) if self._facts.masks_audio else frames
        lent = self._take(batch, held)
        if lent is None:
            return None
        # Python collects `search` at any time, in a thread that may hold the lock: a deque is appended to without one.
        weakref.finalize(search, self._returned.append, ((batch, held), lent)).atexit = False
        if held > frames:
            states = self._backend.download(encoder_hidden_states)
            encoder_hidden_states = self._backend.upload(_filled_up(states, held))
        self._backend.write(lent.fixed[ENCODER_ATTENTION_MASK], _filled_up(mask, held))
        cross = {name: lent.fixed[name] for name in cache_names("cross", self._facts.layers)}
        self._backend.prepare(DECODER_INIT, {ENCODER_HIDDEN_STATES: encoder_hidden_states}, [], cross)()
        return lent

    def _take(self, batch: int, frames: int) -> Lent | None:
        with self._lock:
            while self._returned:
                sizes, lent = self._returned.popleft()
                self._free.setdefault(sizes, []).append(lent)
            if free := self._free.get((batch, frames)):
                return free.pop()
            if not self._left:
                return None
            self._left -= 1
        facts, allocate = self._facts, self._backend.allocate
        shape = (batch, facts.heads, frames, facts.head_dim)
        names = cache_names("cross", facts.layers)
        fixed = {name: allocate(shape, self._backend.dtype(DECODER_WITH_PAST, name)) for name in names}
        fixed[ENCODER_ATTENTION_MASK] = allocate((batch, frames), np.dtype(np.int64))
        return Lent(StepMemory(self._backend, facts, batch), fixed)


def _filled_up(states: NDArray[np.generic], frames: int) -> NDArray[np.generic]:
    """States [batch, frames, …] with zeros behind them."""
    more = [(0, 0)] * states.ndim
    more[1] = (0, frames - states.shape[1])
    return np.pad(states, more)
