"""Test the cache that a step writes in place against one that is copied at every step."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from speech_runtime.bundle.graph_io import INPUT_IDS, PAST_LENGTH
from speech_runtime.bundle.model_facts import DecoderFacts
from speech_runtime.generation.decoding.caches.base import Binding
from speech_runtime.generation.decoding.caches.in_place import InPlaceCache
from speech_runtime.generation.search.base import in_order

LAYERS, HEADS, HEAD_DIM = 2, 2, 3
FACTS = DecoderFacts(LAYERS, HEADS, HEAD_DIM, 100, None, None, 4, cache="in_place")


class Backend:
    """Arrays as they are."""

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def share(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def download(self, value: Any) -> Any:
        raise AssertionError(value)


class Both:
    """The cache, and the history of tokens that each beam's keys must tell of."""

    def __init__(self, batch: int) -> None:
        self.cache = InPlaceCache(Backend(), FACTS, batch)
        self.histories = np.zeros((batch, 1, 0), dtype=np.int64)

    def step(self, input_ids: NDArray[np.int64], beam_idx: NDArray[np.int64]) -> None:
        if input_ids.shape[2] == 1 and len(self.histories[0]) == len(beam_idx[0]):
            bound = self.cache.append_token(input_ids[:, :, 0].tolist(), beam_idx.tolist())
        else:
            bound = self.cache.bind(input_ids, beam_idx.tolist())
        (past,) = bound.inputs[PAST_LENGTH]
        by_slot = bound.inputs[INPUT_IDS]
        tokens = by_slot.shape[2]
        for layer, tensor in enumerate(bound.into.values()):  # what the graph does: append, row by row
            written = by_slot.reshape(-1, 1, tokens, 1) * 10 + layer
            tensor[:, :, past : past + tokens] = np.broadcast_to(written, (*tensor.shape[:2], tokens, HEAD_DIM))
        self.cache.commit({})
        kept = np.take_along_axis(self.histories, beam_idx[:, :, None], axis=1)
        self.histories = np.concatenate([kept, input_ids], axis=2)
        np.testing.assert_array_equal(in_order(by_slot, self.cache.slots), input_ids)
        self.check(bound.into)

    def check(self, tensors: Mapping[str, Any]) -> None:
        batch, beams, length = self.histories.shape
        for layer, tensor in enumerate(tensors.values()):
            rows = in_order(tensor.reshape(batch, beams, *tensor.shape[1:]), self.cache.slots)[:, :, :, :length]
            expected = np.broadcast_to(self.histories[:, :, None, :, None] * 10 + layer, rows.shape)
            np.testing.assert_array_equal(rows, expected)

    def select_utterances(self, utterances: NDArray[np.int64]) -> None:
        self.cache.select_utterances(utterances)
        self.histories = self.histories[utterances]


@given(st.data(), st.integers(1, 4), st.integers(1, 6), st.integers(1, 5))
def test_every_beam_finds_what_it_has_seen(data: st.DataObject, batch: int, beams: int, prompt: int) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    both, before = Both(batch), 1
    for step in range(data.draw(st.integers(1, 12))):
        width, tokens = (1, prompt) if step == 0 else (beams, 1)
        rows = len(both.histories)
        both.step(random.integers(0, 100, (rows, width, tokens)), random.integers(0, before, (rows, width)))
        before = width
        if rows > 1 and random.random() < 0.2:
            both.select_utterances(np.sort(random.choice(rows, rows - 1, replace=False)))


@pytest.mark.parametrize("beams", [1, 3])
def test_there_is_room_for_more_than_at_first(beams: int) -> None:
    random, both = np.random.default_rng(0), Both(2)
    both.step(random.integers(0, 100, (2, 1, 70)), np.zeros((2, 1), dtype=np.int64))
    for step in range(150):
        width = 1 if step == 0 else beams
        both.step(random.integers(0, 100, (2, beams, 1)), random.integers(0, width, (2, beams)))


def test_a_step_of_the_same_sizes_is_bound_to_the_same_tensors() -> None:
    cache = InPlaceCache(Backend(), FACTS, 1)
    first = cache.bind(np.array([[[5]]]), [[0]])
    cache.commit({})
    wider = cache.append_token([[1, 2, 3]], [[0, 0, 0]])
    cache.commit({})
    assert wider is not first
    for _ in range(62):
        assert cache.append_token([[4, 6, 7]], [[2, 0, 1]]) is wider
        cache.commit({})
    assert cache.append_token([[4, 6, 7]], [[0, 0, 0]]) is not wider  # there was no room for more


def test_beams_that_change_places_are_not_copied() -> None:
    both = Both(1)
    both.step(np.array([[[5]]]), np.array([[0]]))
    both.step(np.array([[[1], [2], [3]]]), np.array([[0, 0, 0]]))
    storage = both.cache._storage.copy()
    both.step(np.array([[[4], [6], [7]]]), np.array([[2, 0, 1]]))
    np.testing.assert_array_equal(both.cache._storage[:, :, :, :2], storage[:, :, :, :2])


class Ragged:
    """A cache whose utterances join and leave, and the history of tokens that each beam's keys must tell of."""

    def __init__(self, beams: int) -> None:
        self.beams = beams
        self.cache: InPlaceCache | None = None
        self.histories: list[NDArray[np.int64]] = []  # [beams, length] each
        self.fresh: list[bool] = []  # only their prompts have been decoded

    def join(self, prompts: NDArray[np.int64], capacity: int) -> None:
        """Let utterances with these prompts [utterances, tokens] join, as a session does."""
        newcomers = InPlaceCache(Backend(), replace(FACTS, ragged=True), len(prompts))
        self._append(newcomers.bind(prompts[:, None], [[0]] * len(prompts)))
        newcomers.commit({})
        if self.cache is None:
            self.cache = newcomers
        else:
            self.cache.join(newcomers, self.beams, capacity)
        self.histories += [np.repeat(prompt[None], self.beams, axis=0) for prompt in prompts]
        self.fresh += [True] * len(prompts)

    def step(self, tokens: NDArray[np.int64], beam_idx: NDArray[np.int64]) -> None:
        assert self.cache is not None
        bound = self.cache.append_token(tokens.tolist(), beam_idx.tolist())
        assert bound.inputs[PAST_LENGTH].tolist() == [history.shape[1] for history in self.histories]
        self._append(bound)
        self.cache.commit({})
        self.fresh = [False] * len(tokens)
        new = zip(self.histories, tokens, beam_idx, strict=True)
        self.histories = [np.concatenate([before[beam], own[:, None]], axis=1) for before, own, beam in new]
        for layer, tensor in enumerate(bound.into.values()):
            for row, (history, slots) in enumerate(zip(self.histories, self.cache.slots, strict=True)):
                kept = tensor[row * self.beams : (row + 1) * self.beams][list(slots), :, : history.shape[1]]
                expected = np.broadcast_to(history[:, None, :, None] * 10 + layer, kept.shape)
                np.testing.assert_array_equal(kept, expected)

    def select_utterances(self, utterances: list[int]) -> None:
        assert self.cache is not None
        self.cache.select_utterances(utterances)
        self.histories = [self.histories[row] for row in utterances]
        self.fresh = [self.fresh[row] for row in utterances]

    @staticmethod
    def _append(bound: Binding) -> None:
        """What the graph does: append to each row at its own place; what is behind it is not read."""
        by_slot = bound.inputs[INPUT_IDS]
        batch, beams, tokens = by_slot.shape
        for layer, tensor in enumerate(bound.into.values()):
            for row in range(batch * beams):
                past = bound.inputs[PAST_LENGTH][row // beams]
                tensor[row, :, past : past + tokens] = by_slot.reshape(-1, tokens)[row, :, None] * 10 + layer
                tensor[row, :, past + tokens :] = np.nan


@given(st.data(), st.integers(1, 4), st.integers(1, 5))
def test_utterances_join_and_leave(data: st.DataObject, beams: int, capacity: int) -> None:
    random, ragged = np.random.default_rng(data.draw(st.integers(0, 2**32))), Ragged(beams)
    ragged.join(random.integers(0, 100, (2, 3)), capacity)
    for _ in range(data.draw(st.integers(1, 14))):
        rows = len(ragged.histories)
        if random.random() < 0.4:
            ragged.join(random.integers(0, 100, (random.integers(1, 3), random.choice([1, 4, 70]))), capacity)
        elif rows > 1 and random.random() < 0.4:
            going_on = np.flatnonzero(random.random(rows) < 0.6).tolist() or [rows - 1]
            ragged.select_utterances(going_on)
        rows = len(ragged.histories)
        beam_idx = random.integers(0, beams, (rows, beams))
        beam_idx[ragged.fresh] = 0  # the beams are alike, and the first is continued
        ragged.step(random.integers(0, 100, (rows, beams)), beam_idx)
