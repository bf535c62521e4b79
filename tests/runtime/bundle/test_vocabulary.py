"""Test the vocabulary of a bundle that leaves tokens out."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_runtime.bundle.vocabulary import Vocabulary
from speech_runtime.dataclass_json import FieldError

SIZE = 40


@given(st.sets(st.integers(0, SIZE - 1), min_size=1))
def test_any_set_of_tokens_is_kept(tokens: set[int]) -> None:
    vocabulary = Vocabulary.keeping(SIZE, tokens)
    assert vocabulary == Vocabulary(SIZE, vocabulary.kept)
    assert vocabulary.count == len(tokens)
    assert vocabulary.ids.tolist() == sorted(tokens)
    assert np.flatnonzero(vocabulary.is_kept).tolist() == sorted(tokens)
    assert vocabulary.left_out(range(-3, SIZE + 3)) == sorted({*range(SIZE)} - tokens)
    logits = np.arange(2 * len(tokens), dtype=np.float32).reshape(2, -1)
    whole = vocabulary.expanded(logits)
    np.testing.assert_array_equal(whole[:, sorted(tokens)], logits)
    assert (np.delete(whole, sorted(tokens), axis=1) == -np.inf).all()


def test_ranges_are_short() -> None:
    assert Vocabulary.keeping(SIZE, [7, 0, 1, 2, 3, 39]).kept == "0-3,7,39"


def test_all_tokens_are_kept_by_default() -> None:
    vocabulary, logits = Vocabulary(3), np.zeros((2, 3), dtype=np.float32)
    assert (vocabulary.count, vocabulary.ids.tolist()) == (3, [0, 1, 2])
    assert vocabulary.expanded(logits) is logits
    assert vocabulary.left_out([0, 5]) == []
    assert vocabulary.unknown([0, 5, -1]) == [-1, 5]


def test_an_error_names_the_tokens_and_the_remedy() -> None:
    vocabulary = Vocabulary(SIZE, "0-3")
    assert vocabulary.why_left_out([1, 2, SIZE]) is None
    why = vocabulary.why_left_out([9, 1, 7], name=lambda token: f"<{token}>")
    assert why is not None
    assert why.startswith("<7>, <9>, which this bundle leaves out: it keeps 4 of 40 tokens; ")
    assert why.endswith("export the model again with them in a file of --vocabulary")
    assert " and 28 more, which" in str(vocabulary.why_left_out(range(SIZE)))


@pytest.mark.parametrize("kept", ["", "a", "1,", "-1", "1--2", "1 ,2", "3-1", "4,2", "1-3,3", "40", "0-40", "9" * 11])
def test_other_ranges_are_refused(kept: str) -> None:
    with pytest.raises(FieldError, match=re.escape(f"decoder.kept_tokens is {kept!r}, expected")):
        Vocabulary(SIZE, kept)
