"""Test the cache that beams share: each token must see the tokens before it in its own sequence, and no others."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from speech_runtime.bundle.graph_io import INPUT_IDS, POSITION_IDS, SLOT_MASK, WRITE_SLOT, cache_names
from speech_runtime.bundle.model_facts import DecoderFacts
from speech_runtime.generation.decoding.caches.tree import TreeBuffers, TreeCache

LAYERS, HEADS, HEAD_DIM = 2, 2, 3
FACTS = DecoderFacts(LAYERS, HEADS, HEAD_DIM, 100, None, None, 4, cache="tree")


class Backend:
    """Arrays as they are; new memory holds NaN."""

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        return np.full(shape, np.nan if dtype.kind == "f" else 0, dtype=dtype)

    def write(self, value: NDArray[Any], array: NDArray[Any]) -> None:
        assert (value.shape, value.dtype) == (array.shape, array.dtype)
        np.copyto(value, array)

    def download(self, value: NDArray[Any]) -> NDArray[Any]:
        return value.copy()

    def dtype(self, *_: object) -> np.dtype[Any]:
        return np.dtype(np.float16)


def new_cache(batch: int, recorded: bool = False, **sizes: Any) -> TreeCache:
    return TreeCache(TreeBuffers(Backend(), FACTS, batch), FACTS, batch, recorded=recorded, **sizes)


class Both:
    """The cache, and the sequence of each beam, which the slots that its last token sees must tell of."""

    def __init__(self, batch: int, **sizes: Any) -> None:
        self.cache = new_cache(batch, **sizes)
        self.sequences = np.zeros((batch, 1, 0), dtype=np.int64)

    def step(self, input_ids: NDArray[np.int64], beam_idx: NDArray[np.int64]) -> Mapping[str, Any]:
        if input_ids.shape[2] == 1:
            bound = self.cache.append_token(input_ids[:, :, 0].tolist(), beam_idx.tolist())
        else:
            bound = self.cache.bind(input_ids, beam_idx.tolist())
        given, (first, *others) = bound.inputs, bound.inputs[WRITE_SLOT]
        assert all(other == first for other in others)
        np.testing.assert_array_equal(given[INPUT_IDS], input_ids)
        queries = input_ids.reshape(len(input_ids), -1)
        for layer, name in enumerate(cache_names("past", LAYERS)):  # what the graph does
            assert bound.into[name.replace("past", "present")] is given[name]
            given[name][:, first : first + queries.shape[1]] = (queries * 10 + layer)[:, :, None]
        self.cache.commit({})
        kept = np.take_along_axis(self.sequences, beam_idx[:, :, None], axis=1)
        self.sequences = np.concatenate([kept, input_ids], axis=2)
        self._check(given, input_ids.shape[2])
        return given

    def _check(self, given: Mapping[str, Any], tokens: int) -> None:
        batch, beams, length = self.sequences.shape
        queries = [(beam, index) for beam in range(beams) for index in range(length - tokens, length)]
        assert given[POSITION_IDS].tolist() == [index for _, index in queries]
        for layer, name in enumerate(cache_names("past", LAYERS)):
            assert given[name].shape == (batch, given[SLOT_MASK].shape[2], HEADS * HEAD_DIM)
            assert np.isfinite(given[name]).all()
            written = given[name][:, :, -1]
            for row in range(batch):
                for mask, (beam, index) in zip(given[SLOT_MASK][row], queries, strict=True):
                    expected = self.sequences[row, beam, : index + 1] * 10 + layer
                    assert written[row][mask].tolist() == expected.tolist()

    def select_utterances(self, utterances: NDArray[np.int64]) -> None:
        self.cache.select_utterances(utterances)
        self.sequences = self.sequences[utterances]


@given(st.data(), st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.sampled_from([2, 6, 40, None]))
def test_every_token_sees_its_own_sequence(
    data: st.DataObject, batch: int, beams: int, prompt: int, longest: int | None
) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    both, before = Both(batch, beams=beams, longest=longest), 1
    for step in range(data.draw(st.integers(1, 9))):
        width, tokens = (1, prompt) if step == 0 else (beams, int(random.choice([1, 1, 1, 3])))
        rows = len(both.sequences)
        both.step(random.integers(0, 100, (rows, width, tokens)), random.integers(0, before, (rows, width)))
        before = width
        if rows > 1 and random.random() < 0.2:
            both.select_utterances(np.sort(random.choice(rows, rows - 1, replace=False)))


@pytest.mark.parametrize(
    ("beams", "longest", "slots"),
    [(1, 2, 8), (1, None, 128), (5, 129, 640), (5, 1000, 640), (5, 21, 160), (5, 20, 160), (3, 6, 24), (4, 1, 8)],
)
def test_there_are_slots_for_the_search_or_for_its_beginning(beams: int, longest: int | None, slots: int) -> None:
    bound = new_cache(2, beams=beams, longest=longest).append_token([[1], [2]], [[0], [0]])
    assert bound.inputs[SLOT_MASK].shape == (2, 1, slots)


def test_slots_double_when_all_are_used() -> None:
    random, both = np.random.default_rng(0), Both(2, beams=3, longest=3)
    both.step(random.integers(0, 100, (2, 1, 1)), np.zeros((2, 1), dtype=np.int64))
    found = [
        both.step(random.integers(0, 100, (2, 3, 1)), random.integers(0, 3 if step else 1, (2, 3)))[SLOT_MASK].shape[2]
        for step in range(12)
    ]
    assert found == [8] * 2 + [16] * 3 + [32] * 5 + [64] * 2


def test_a_prompt_that_is_longer_has_slots_at_once() -> None:
    both = Both(1, beams=1, longest=6)
    assert both.step(np.arange(21)[None, None], np.array([[0]]))[SLOT_MASK].shape == (1, 21, 24)


def test_a_recorded_step_has_the_same_tensors_until_there_are_more_slots() -> None:
    cache = new_cache(1, recorded=True, beams=3, longest=9)
    alone = cache.append_token([[1]], [[0]])
    cache.commit({})
    first = cache.append_token([[1, 2, 3]], [[0, 0, 0]])
    assert first is not alone
    assert first.places is not None
    outputs = first.places(["top_ids"])
    assert outputs is not None
    assert outputs["top_ids"].shape == (1, 3, 1, 4)
    for _ in range(6):
        cache.commit({})
        assert cache.append_token([[4, 5, 6]], [[2, 0, 1]]) is first
    for _ in range(2):
        cache.commit({})
        grown = cache.append_token([[4, 5, 6]], [[2, 0, 1]])
    assert grown is not first


def test_a_step_of_several_tokens_is_not_recorded() -> None:
    cache = new_cache(1, recorded=True)
    assert cache.bind(np.array([[[1, 2]]]), [[0]]).places is None


def test_what_is_not_recorded_has_outputs_of_its_own() -> None:
    cache = new_cache(1)
    first = cache.append_token([[1]], [[0]])
    cache.commit({})
    assert cache.append_token([[2]], [[0]]) is not first
