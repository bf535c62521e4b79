"""Test the word error rate against that of jiwer."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_export.verification.word_errors import word_error_rate

SENTENCES = st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=6).map(" ".join)


@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=4))
def test_it_is_jiwers(pairs: list[tuple[str, str]]) -> None:
    references, transcripts = [list(side) for side in zip(*pairs, strict=True)]
    assert word_error_rate(references, transcripts) == pytest.approx(jiwer.wer(references, transcripts))


def test_words_where_nothing_was_said_are_errors() -> None:
    assert word_error_rate([""], ["one"]) == 1
    assert word_error_rate([""], [""]) == 0
