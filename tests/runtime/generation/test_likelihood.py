"""Test scores and losses of given tokens: each is right, or the error names its text."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from speech_runtime.bundle.model_facts import DecoderFacts
from speech_runtime.bundle.vocabulary import Vocabulary
from speech_runtime.errors import GenerationError
from speech_runtime.generation.decoding.decoder import CachedDecoder
from speech_runtime.generation.likelihood import checked_texts, decoder_input_ids, sequence_logprobs

VOCABULARY, POSITIONS, START, END = 20, 8, 1, 2
TABLE = np.random.default_rng(0).standard_normal((VOCABULARY, VOCABULARY)).astype(np.float32)
"""Logits of the next token, by the last one."""


class TableDecoder(CachedDecoder):
    """A decoder without graphs."""

    def __init__(self, table: NDArray[np.float32] = TABLE, cache_length: int | None = None) -> None:
        cache = "growing" if cache_length is None else "static"
        self._table = table
        self._facts = DecoderFacts(1, 1, 1, VOCABULARY, POSITIONS, None, 5, cache, cache_length)

    def logits_of_beams(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._table[input_ids]


def expected(sequence: list[int]) -> float:
    exact = TABLE.astype(np.float64)
    logprobs = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
    return float(sum(logprobs[last, token] for last, token in pairwise(sequence)))


def test_texts_of_any_length_score_together_as_alone() -> None:
    sequences = [[START, *range(3, 3 + n), END] for n in (0, 1, 3, 6)]
    together = sequence_logprobs(TableDecoder(), sequences, Vocabulary(VOCABULARY))
    np.testing.assert_allclose(together, [expected(sequence) for sequence in sequences], atol=1e-5)
    alone = [sequence_logprobs(TableDecoder(), [sequence], Vocabulary(VOCABULARY))[0] for sequence in sequences]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([[START, 5, END], [START]], "text 1 has no token to score"),
        (
            [[START, 5, END], [START, *[5] * 8, END]],
            "text 1: .* be given 9 tokens, .*takes 8 at most; shorten the text",
        ),
        ([[START, *[5] * 400, END]], "text 0: .* be given 401 tokens"),
        ([[START, 5, END], [START, 6, 20, END]], r"text 1 has the tokens \[20\], but the decoder's tokens are 0 … 19"),
        ([[START, -1, 99, END]], r"text 0 has the tokens \[-1, 99\]"),
    ],
)
def test_what_cannot_be_scored_is_named(sequences: list[list[int]], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        sequence_logprobs(TableDecoder(), sequences, Vocabulary(VOCABULARY))


def test_the_last_position_is_scored() -> None:
    sequence = [START, *[5] * 7, END]  # the end token is never given to the decoder
    assert sequence_logprobs(TableDecoder(), [sequence], Vocabulary(VOCABULARY)) == pytest.approx(
        expected(sequence), abs=1e-5
    )


def test_the_room_of_a_static_cache_is_named_with_its_flag() -> None:
    with pytest.raises(GenerationError, match="takes 4 at most; .*export the model again with --static-cache"):
        sequence_logprobs(TableDecoder(cache_length=4), [[START, 5, 5, 5, 5, END]], Vocabulary(VOCABULARY))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_numbers_are_no_score(broken: float) -> None:
    table = TABLE.copy()
    table[7] = broken
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(GenerationError, match="the score of text 1 is not a number: the model's numbers"),
    ):
        sequence_logprobs(TableDecoder(table), [[START, 5, END], [START, 7, END]], Vocabulary(VOCABULARY))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("nine", r"texts is 'nine', it must be a list of texts; give one text as \[text\]"),
        (b"nine", "texts is b'nine'"),
        (None, "texts is None"),
        (5, "texts is 5"),
        (["one", 5], r"texts\[1\] is 5, it must be a string"),
        ([None], r"texts\[0\] is None"),
        ([["one", "two"]], r"texts\[0\] is \['one', 'two'\]"),
        (["\udcff"], r"texts\[0\] is '\\udcff', which has half of a surrogate pair"),
    ],
)
def test_what_is_no_list_of_texts_is_named(texts: Any, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        checked_texts(texts)


def test_any_iterable_of_texts_is_a_list_of_them() -> None:
    for texts in (["one", "two"], ("one", "two"), np.array(["one", "two"]), iter(["one", "two"])):
        assert checked_texts(texts) == ["one", "two"]
    assert checked_texts(np.array([], dtype=str)) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[5, 6], [7, 8]], r"labels must be integers \[1, tokens\], got int64 \[2, 2\]"),
        (np.zeros((1, 0), dtype=np.int64), r"labels must be integers \[1, tokens\], got int64 \[1, 0\]"),
        ("x", r"labels must be integers \[1, tokens\], got <U1 \[\]"),
        ([["a"]], r"labels must be integers \[1, tokens\], got <U1 \[1, 1\]"),
        ({"a": [5]}, r"labels must be integers \[1, tokens\], got object \[\]"),
        ([[5.5]], "labels must be integers"),
        ([[-5]], "labels must be 0 … 19, got -5"),
        ([[20]], "labels must be 0 … 19, got 20"),
        ([[2**63]], "labels must be 0 … 19"),
        ([[5], [6, 7]], r"labels must be integers \[1, tokens\], .*-100"),
    ],
)
def test_labels_that_cannot_be_said_are_named(labels: object, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        decoder_input_ids(labels, [START], 0, Vocabulary(VOCABULARY))
