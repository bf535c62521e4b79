"""The cross-attention cache: keys and values of the audio, and the mask of its frames."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ....backends.base import Backend, Value
from ....bundle.graph_io import DECODER_INIT, ENCODER_ATTENTION_MASK, ENCODER_HIDDEN_STATES, cache_names
from ....bundle.model_facts import DecoderFacts

_MULTIPLE = 16
"""Frames are padded to a multiple of this. ONNX Runtime multiplies the values of a single query four frames at a time,
and the rest one by one: so what an utterance attends to would depend on the longest of its batch in the last bit."""


class CrossStates:
    """What the utterances of a batch attend to.

    Where utterances join or leave, all tensors are in the host's memory, with room behind the rows in use. Padding is
    zeros there: the mask hides it, but it would not hide NaN.

    Attributes:
        values: Keys and values of each layer, [batch, heads, frames, head_dim] or [batch, frames, heads · head_dim],
            and the mask int64 [batch, frames], by the names of the step's inputs.
    """

    @classmethod
    def computed(cls, backend: Backend, facts: DecoderFacts, hidden_states: Value, mask: Value) -> Self:
        """Compute them from the encoder's output, and pad its frames where utterances may join."""
        if facts.ragged and facts.masks_audio and backend.on_host:
            marks = backend.download(mask)
            frames = -(-marks.shape[1] // _MULTIPLE) * _MULTIPLE
            if frames > marks.shape[1]:
                mask = backend.upload(padded(marks, frames))
                hidden_states = backend.upload(padded(backend.download(hidden_states), frames))
        names = cache_names("cross", facts.layers)
        states = backend.run(DECODER_INIT, {ENCODER_HIDDEN_STATES: hidden_states}, names)
        return cls(backend, {ENCODER_ATTENTION_MASK: mask, **states}, masked=facts.masks_audio)

    def __init__(self, backend: Backend, values: Mapping[str, Value], *, masked: bool) -> None:
        """Wrap the tensors; if they are `masked`, padding frames may come and go."""
        self._backend = backend
        self._masked = masked
        self._arrays: dict[str, NDArray[Any]] = {}  # the memory of `values`, once it has room
        self.values = dict(values)

    @property
    def frames(self) -> int:
        """Number of frames, padding included."""
        frames: int = self._present(ENCODER_ATTENTION_MASK).shape[1]
        return frames

    def select_utterances(self, utterances: Sequence[int]) -> None:
        """Drop all utterances but these, and put them in this order: each stays or moves to the front."""
        mask = self._present(ENCODER_ATTENTION_MASK)
        longest = -(-int(mask[list(utterances)].sum(axis=1).max()) // _MULTIPLE) * _MULTIPLE
        frames = longest if self._masked and 2 * longest <= mask.shape[1] else mask.shape[1]
        for name in self.values:  # One after the other: only one is in memory twice.
            before = self._arrays.get(name)
            if before is None or frames < mask.shape[1]:
                array = self._present(name)[list(utterances)]
                self._take(name, np.ascontiguousarray(array[_first_frames(array, frames)]), len(utterances))
            else:
                for row, source in enumerate(utterances):
                    if row != source:
                        before[row] = before[source]
                self._take(name, before, len(utterances))

    def join(self, others: "CrossStates", capacity: int) -> None:
        """Add utterances behind these; where memory is allocated for that, there is room for `capacity` of them."""
        count, more = len(self._present(ENCODER_ATTENTION_MASK)), len(others._present(ENCODER_ATTENTION_MASK))
        own_frames, frames = self.frames, others.frames
        for name in self.values:
            array, theirs = self._arrays.get(name), others._present(name)
            if array is None or len(array) < count + more or frames > own_frames:
                before = self._present(name)
                shape = list(before.shape)
                shape[0], shape[_axis(before)] = max(capacity, count + more), max(frames, own_frames)
                array = np.zeros(shape, dtype=before.dtype)
                array[:count][_first_frames(array, own_frames)] = before
            places = array[count : count + more]
            places[_first_frames(places, frames)] = theirs
            places[_frames_from(places, frames)] = 0
            self._take(name, array, count + more)

    def _present(self, name: str) -> NDArray[Any]:
        """Return the rows in use of a tensor."""
        return self._backend.download(self.values[name])

    def _take(self, name: str, array: NDArray[Any], count: int) -> None:
        """Take the first `count` rows of an array for a tensor."""
        self._arrays[name] = array
        self.values[name] = self._backend.share(array[:count])


def padded(states: NDArray[Any], frames: int) -> NDArray[Any]:
    """Return states [batch, frames, …] padded with zeros to so many `frames`."""
    more = [(0, 0)] * states.ndim
    more[1] = (0, frames - states.shape[1])
    return np.pad(states, more)


def _axis(states: NDArray[Any]) -> int:
    """Return the axis of the frames in keys, values, or a mask."""
    return max(1, states.ndim - 2)


def _first_frames(states: NDArray[Any], frames: int) -> tuple[slice, ...]:
    return (*[slice(None)] * _axis(states), slice(frames))


def _frames_from(states: NDArray[Any], frames: int) -> tuple[slice, ...]:
    return (*[slice(None)] * _axis(states), slice(frames, None))
