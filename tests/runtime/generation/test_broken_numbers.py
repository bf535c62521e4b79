"""Test logits that are NaN or infinite: the error names the utterance and the step, and no text is returned."""

import numpy as np
import pytest
from numpy.typing import NDArray

from speech_runtime.bundle.model_facts import DecoderFacts
from speech_runtime.bundle.vocabulary import Vocabulary
from speech_runtime.errors import GenerationError
from speech_runtime.generation.call_options import CallOptions
from speech_runtime.generation.config import GenerationConfig
from speech_runtime.generation.likelihood import sequence_logprobs
from speech_runtime.generation.search.base import Candidates, all_tokens
from speech_runtime.generation.token_scores.maths import log_softmax
from table_model import TableDecoder, random_table, search

VOCABULARY, TOP_K = 20, 8
FACTS = DecoderFacts(
    layers=1, heads=1, head_dim=1, vocab_size=VOCABULARY, max_positions=None, max_tokens=None, top_k=TOP_K
)
TABLE = random_table(0, VOCABULARY, 2.0)
TABLE[:, 0] = -50  # nothing ends before its last step
PROMPT = np.array([[1, 2], [3, 4], [5, 6]])
BROKEN = {"nan": np.nan, "inf": np.inf, "all -inf": -np.inf}


class BrokenDecoder(TableDecoder):
    """A table whose logits for one utterance are broken at one step; step 1 is the prompt's."""

    def __init__(self, value: float, row: int, step: int) -> None:
        super().__init__(TABLE, TOP_K)
        self.value, self.row, self.broken_step, self.count = value, row, step, 0

    def _answers(self, full_vocab: bool) -> list[Candidates]:
        self.count += 1
        return super()._answers(full_vocab)

    def _answer(self, sequences: NDArray[np.int64], full_vocab: bool) -> Candidates:
        logits = np.array(super()._answer(sequences, full_vocab=True).scores)
        if self.count == self.broken_step and sequences[0, 0] == PROMPT[self.row, 0]:
            some = slice(None) if self.value == -np.inf else slice(7, 8)
            logits[:, -1, some] = self.value
        is_finite = bool(np.isfinite(logits.max(axis=-1)).all())
        return all_tokens(logits, is_finite=is_finite) if full_vocab else _best(logits, is_finite=is_finite)


def _best(logits: NDArray[np.float32], *, is_finite: bool) -> Candidates:
    """The head of a step: log-softmax of everything, then the best."""
    with np.errstate(invalid="ignore"):
        logprobs = log_softmax(logits)
    ids = np.argsort(-logprobs, axis=-1, kind="stable")[:, :, :TOP_K]
    return Candidates(ids, np.take_along_axis(logprobs, ids, axis=-1), is_sorted=True, is_finite=is_finite)


def found(decoder: TableDecoder, beams: int, full_vocab: bool) -> NDArray[np.int64]:
    config = GenerationConfig(num_beams=beams, max_new_tokens=6, eos_token_id=(0,), pad_token_id=0)
    return search(decoder, FACTS, PROMPT, config, CallOptions(output_logits=full_vocab)).sequences


@pytest.mark.parametrize("value", BROKEN)
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("full_vocab", [False, True])
@pytest.mark.parametrize(("row", "step"), [(0, 1), (2, 1), (1, 3), (2, 6)])
def test_the_utterance_and_the_step_are_named(value: str, beams: int, full_vocab: bool, row: int, step: int) -> None:
    with pytest.raises(GenerationError, match=rf"scores of step {step} are not finite for utterance {row} of the"):
        found(BrokenDecoder(BROKEN[value], row, step), beams, full_vocab)


@pytest.mark.parametrize("beams", [1, 3])
def test_numbers_that_are_whole_are_searched_as_before(beams: int) -> None:
    broken_too_late = BrokenDecoder(np.nan, 0, step=99)
    np.testing.assert_array_equal(
        found(broken_too_late, beams, full_vocab=False), found(TableDecoder(TABLE, TOP_K), beams, full_vocab=False)
    )


def test_an_utterance_keeps_its_number_once_others_are_set_aside() -> None:
    class Early(BrokenDecoder):
        """The first two utterances end at once."""

        def _answer(self, sequences: NDArray[np.int64], full_vocab: bool) -> Candidates:
            found = super()._answer(sequences, full_vocab)
            if self.count == 1 and sequences[0, 0] != PROMPT[2, 0]:
                found.ids[:, :, 0] = 0
            return found

    with pytest.raises(GenerationError, match="scores of step 3 are not finite for utterance 2 of the batch"):
        found(Early(np.nan, 2, step=3), beams=1, full_vocab=False)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_given_text_has_no_score_then(value: float) -> None:
    class Beams:
        def check_positions(self, tokens: int, name: str) -> None:
            pass

        def logits_of_beams(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
            logits = np.zeros((*tokens.shape, VOCABULARY), dtype=np.float32)
            logits[1, 0, 3] = value
            return logits

    with (
        np.errstate(invalid="ignore"),
        pytest.raises(GenerationError, match="the score of text 1 is not a number: the model's numbers"),
    ):
        sequence_logprobs(Beams(), [[1, 2], [1, 2], [1, 2]], Vocabulary(VOCABULARY))
