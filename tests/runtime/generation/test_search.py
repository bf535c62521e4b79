"""Test our search against that of transformers on the same table of logits, at many settings, without a graph."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import GenerationConfig as ReferenceConfig

from speech_runtime.bundle.model_facts import DecoderFacts
from speech_runtime.bundle.vocabulary import Vocabulary
from speech_runtime.errors import GenerationError
from speech_runtime.generation.call_options import CallOptions
from speech_runtime.generation.config import GenerationConfig
from speech_runtime.generation.search.base import Candidates
from speech_runtime.generation.token_scores.maths import Scores, Sequences
from table_model import TableDecoder, TableModel, random_table, search

FACTS = DecoderFacts(layers=1, heads=1, head_dim=1, vocab_size=20, max_positions=None, max_tokens=None, top_k=20)


@st.composite
def searches(draw: st.DrawFn) -> dict[str, Any]:
    beams = draw(st.integers(1, 5))
    vocabulary = draw(st.integers(12, 40))
    ends = draw(st.lists(st.integers(8, vocabulary - 1), min_size=1, max_size=2, unique=True))
    return {
        "vocabulary": vocabulary,
        "table_seed": draw(st.integers(0, 2**32 - 1)),
        "spread": draw(st.sampled_from([0.5, 2.0, 5.0])),
        "prompt": draw(
            st.lists(st.lists(st.integers(0, vocabulary - 1), min_size=2, max_size=2), min_size=1, max_size=3)
        ),
        "eos_token_id": ends,
        "pad_token_id": draw(st.integers(0, vocabulary - 1)),
        "num_beams": beams,
        "num_return_sequences": draw(st.integers(1, beams)),
        "length_penalty": draw(st.sampled_from([-1.0, 0.0, 0.6, 1.0, 2.0])),
        "early_stopping": draw(st.sampled_from([True, False, "never"])),
        "max_new_tokens": draw(st.integers(1, 12)),
        "min_new_tokens": draw(st.sampled_from([None, 0, 3, 20])),
        "forced_eos_token_id": draw(st.sampled_from([None, ends[0]])),
        "suppress_tokens": draw(st.sampled_from([None, [5, 7], [*range(7)]])),
        "begin_suppress_tokens": draw(st.sampled_from([None, [6, 3]])),
        "candidates": draw(st.sampled_from([4, 12, 64])),
        **draw(processors(vocabulary)),
    }


@st.composite
def processors(draw: st.DrawFn, vocabulary: int) -> dict[str, Any]:
    """Settings that need more than the best candidates; most of them off."""
    token = st.integers(0, vocabulary - 1)
    words = st.lists(st.lists(token, min_size=1, max_size=3), min_size=1, max_size=4)
    settings = {
        "repetition_penalty": draw(st.sampled_from([0.8, 1.3, 2.0])),
        "no_repeat_ngram_size": draw(st.integers(1, 3)),
        "bad_words_ids": draw(words),
        "sequence_bias": [[word, bias] for word, bias in zip(draw(words), (-3.0, 2.5, 0.5, -1.0), strict=False)],
        "exponential_decay_length_penalty": (draw(st.integers(0, 6)), draw(st.sampled_from([1.1, 1.6]))),
        "renormalize_logits": True,
        "remove_invalid_values": True,
    }
    chosen = draw(st.sets(st.sampled_from(sorted(settings)), max_size=3))
    return {name: value for name, value in settings.items() if name in chosen}


@settings(max_examples=300, deadline=None)
@given(searches())
def test_search_says_what_transformers_says(case: dict[str, Any]) -> None:
    table = random_table(case.pop("table_seed"), vocabulary := case.pop("vocabulary"), case.pop("spread"))
    prompt, top_k = np.array(case.pop("prompt")), min(case.pop("candidates"), vocabulary)
    # Where every token is forced there is one hypothesis; what fills up the others is a tie, broken at will.
    assume(case["max_new_tokens"] > 1 or case["forced_eos_token_id"] is None)
    if case["num_beams"] == 1:
        del case["early_stopping"], case["length_penalty"]
    reference = TableModel(table).generate(
        torch.from_numpy(prompt),
        attention_mask=torch.ones(prompt.shape),  # a padding token of the prompt is a token like any other
        generation_config=ReferenceConfig(**case, use_cache=False, output_scores=True, return_dict_in_generate=True),
    )

    if case.get("remove_invalid_values") and case["num_beams"] > 1:  # what was -inf or becomes inf is equally good
        assume(bool((reference.sequences_scores.abs() < 1e8).all()))

    facts = DecoderFacts(
        layers=1, heads=1, head_dim=1, vocab_size=vocabulary, max_positions=None, max_tokens=None, top_k=top_k
    )
    config = GenerationConfig().updated({name: value for name, value in case.items() if value is not None})
    try:
        found = search(TableDecoder(table, top_k), facts, prompt, config)
    except GenerationError:  # every token is banned; transformers goes on with token 0
        assume(False)

    np.testing.assert_array_equal(found.sequences, reference.sequences.numpy())
    if case["num_beams"] > 1:
        finite = np.isfinite(found.sequences_scores) & (found.sequences_scores > -1e8)
        np.testing.assert_allclose(
            found.sequences_scores[finite], reference.sequences_scores.numpy()[finite], atol=1e-4
        )


@pytest.mark.parametrize("beams", [1, 5, 8])
@pytest.mark.parametrize("seed", range(4))
def test_a_vocabulary_of_six_words_is_enough_for_any_beams(beams: int, seed: int) -> None:
    vocabulary, prompt = Vocabulary.keeping(FACTS.vocab_size, [1, 2, 5, 9, 10, 17]), np.array([[1], [9]])
    table = np.where(vocabulary.is_kept, random_table(seed, FACTS.vocab_size, 1.0), np.float32(-np.inf))
    settings = {"num_beams": beams, "num_return_sequences": min(beams, 3), "eos_token_id": 2, "max_new_tokens": 6}
    with torch.no_grad():
        expected = TableModel(table).generate(
            torch.from_numpy(prompt), use_cache=False, pad_token_id=1, return_dict_in_generate=True, **settings
        )
    facts = replace(FACTS, kept_tokens=vocabulary.kept, top_k=vocabulary.count)
    found = search(TableDecoder(table, facts.top_k), facts, prompt, GenerationConfig(pad_token_id=1, **settings))
    np.testing.assert_array_equal(found.sequences, expected.sequences.numpy())
    assert vocabulary.is_kept[found.sequences].all()


@pytest.mark.parametrize(("beams", "banned"), [(1, range(3, 33)), (3, range(3, 9))])
def test_a_step_whose_best_candidates_are_banned_takes_the_whole_vocabulary(beams: int, banned: range) -> None:
    table, prompt = random_table(3, 40, 2.0), np.array([[1, 2]])
    facts = replace(FACTS, vocab_size=40, top_k=8)
    config = GenerationConfig(
        num_beams=beams, suppress_tokens=tuple(banned), eos_token_id=39, max_new_tokens=20, early_stopping="never"
    )
    wanted: list[bool] = []

    class Counting(TableDecoder):
        exchanged = 0

        def _answer(self, sequences: NDArray[np.int64], full_vocab: bool) -> Candidates:
            wanted.append(full_vocab)
            found, self.whole = super()._answer(sequences, full_vocab), super()._answer(sequences, True).scores
            return Candidates(found.ids, found.scores, is_sorted=True, logits=self._exchange)

        def _exchange(self) -> Scores:
            self.exchanged += 1
            return self.whole

    counting = Counting(table, 8)
    found = search(counting, facts, prompt, config)
    expected = search(TableDecoder(table, 40), replace(facts, top_k=40), prompt, config)
    np.testing.assert_array_equal(found.sequences, expected.sequences)
    np.testing.assert_allclose(found.token_logprobs, expected.token_logprobs, atol=1e-5)
    assert not any(wanted)
    assert 0 < counting.exchanged < len(wanted)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 5),
    st.sampled_from([-1.0, 0.0, 0.6, 1.0, 2.0]),
    st.sampled_from([True, False, "never"]),
    st.data(),
)
def test_a_search_that_is_settled_takes_fewer_steps_to_the_same(
    seed: int, beams: int, penalty: float, early_stopping: bool | str, data: st.DataObject
) -> None:
    check_settled(seed, beams, penalty, early_stopping, data.draw(st.integers(1, beams)))


@pytest.mark.parametrize(
    ("seed", "beams", "penalty", "returned"),
    [(115763, 2, -1.0, 1), (3892834495, 2, -1.0, 1), (3981755864, 5, 0.0, 4), (2000161894, 4, 0.0, 3)],
)
def test_one_utterance_is_full_and_the_other_cannot_improve(
    seed: int, beams: int, penalty: float, returned: int
) -> None:
    """All are closed, each for another reason: there is no row left to go on with."""
    check_settled(seed, beams, penalty, True, returned)


def check_settled(seed: int, beams: int, penalty: float, early_stopping: bool | str, returned: int) -> None:
    """A search of two utterances finds the same whether or not it may end early."""
    table = random_table(seed, 20, 4.0)
    table[:, 2] += 4.0  # ends are likely
    config = GenerationConfig().updated(
        {
            "eos_token_id": 2,
            "pad_token_id": 1,
            "num_beams": beams,
            "num_return_sequences": returned,
            "max_new_tokens": 30,
            "length_penalty": penalty,
            "early_stopping": early_stopping,
        }
    )
    prompt = np.array([[4], [9]])
    # Who wants the scores of every step gets as many as from transformers.
    early, whole = (
        search(TableDecoder(table, 20), FACTS, prompt, config, CallOptions(output_scores=recorded))
        for recorded in (False, True)
    )
    np.testing.assert_array_equal(early.sequences, whole.sequences)
    np.testing.assert_array_equal(early.beam_indices, whole.beam_indices)
    # Below 0, a penalty multiplies the sum of log-probabilities, with its rounding, by the length.
    rounding = 1e-5 * 30 ** max(0.0, -penalty)
    np.testing.assert_allclose(early.sequences_scores, whole.sequences_scores, rtol=1e-5, atol=rounding)
    assert early.steps <= whole.steps


def test_a_search_ends_when_nothing_that_it_returns_can_change() -> None:
    table = np.full((97, 20), -9.0, dtype=np.float32)
    table[:, 2], table[:, 5] = 9.0, 1.0  # an end is likely everywhere, and nothing else is
    config = GenerationConfig(eos_token_id=2, pad_token_id=1, num_beams=4, max_new_tokens=30, early_stopping="never")
    prompt = np.array([[4]])
    assert search(TableDecoder(table, 20), FACTS, prompt, config).steps == 1
    assert search(TableDecoder(table, 20), FACTS, prompt, config, CallOptions(output_scores=True)).steps > 1
    all_of_them = replace(config, num_return_sequences=4)
    assert search(TableDecoder(table, 20), FACTS, prompt, all_of_them).steps > 1


def test_many_candidates_are_picked_before_they_are_sorted() -> None:
    table, prompt = random_table(7, 3000, 2.0), np.array([[4], [9]])
    settings = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 8, "eos_token_id": 2, "pad_token_id": 1}
    reference = TableModel(table).generate(
        torch.from_numpy(prompt), generation_config=ReferenceConfig(**settings, use_cache=False)
    )
    facts = DecoderFacts(layers=1, heads=1, head_dim=1, vocab_size=3000, max_positions=None, max_tokens=None, top_k=4)
    found = search(TableDecoder(table, 4), facts, prompt, GenerationConfig().updated(settings))
    np.testing.assert_array_equal(found.sequences, reference.numpy())


def test_settings_that_allow_nothing_are_refused() -> None:
    config = GenerationConfig(forced_eos_token_id=2, begin_suppress_tokens=(2,), max_new_tokens=1)
    with pytest.raises(GenerationError, match="no token is possible"):
        search(TableDecoder(random_table(0, 20, 1.0), 20), FACTS, np.array([[4, 5]]), config)


def test_forced_first_token_keeps_the_beams_apart() -> None:
    table = random_table(3, 20, 2.0)
    settings = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 6, "eos_token_id": 2, "pad_token_id": 1}
    prompt = np.array([[4], [9]])
    reference = TableModel(table).generate(
        torch.from_numpy(prompt),
        generation_config=ReferenceConfig(**settings, forced_bos_token_id=7, use_cache=False),
    )
    config = GenerationConfig().updated({**settings, "forced_bos_token_id": 7})
    found = search(TableDecoder(table, 20), FACTS, prompt, config)
    np.testing.assert_array_equal(found.sequences, reference.numpy())


@pytest.mark.parametrize("beams", [1, 3])
def test_a_forced_token_has_the_models_own_log_probability(beams: int) -> None:
    table, prompt = random_table(3, 20, 2.0), np.array([[4], [9]])
    forced = table[prompt[:, 0] * 31 % len(table)].argmin(axis=1)[0]  # none of the best candidates
    settings = {"num_beams": beams, "eos_token_id": 2, "max_new_tokens": 6, "forced_bos_token_id": int(forced)}
    config, facts = GenerationConfig(**settings, forced_eos_token_id=2), replace(FACTS, top_k=12)
    few, whole = (
        search(TableDecoder(table, 12), facts, prompt, config, CallOptions(output_logits=wide))
        for wide in (False, True)
    )
    np.testing.assert_array_equal(few.sequences, whole.sequences)
    np.testing.assert_allclose(few.token_logprobs, whole.token_logprobs, atol=1e-5)
    assert (few.token_logprobs[:, 0] < -2).all()


def test_an_end_raised_to_infinity_is_chosen_as_in_transformers() -> None:
    table, prompt = random_table(3, 20, 2.0), np.array([[4], [9]])
    settings: dict[str, Any] = {"eos_token_id": 2, "pad_token_id": 1, "max_new_tokens": 9, "min_new_tokens": 8}
    settings |= {"remove_invalid_values": True, "exponential_decay_length_penalty": (2, 1.9)}
    reference = TableModel(table).generate(
        torch.from_numpy(prompt), generation_config=ReferenceConfig(**settings, use_cache=False)
    )
    found = search(TableDecoder(table, 20), FACTS, prompt, GenerationConfig().updated(settings))
    np.testing.assert_array_equal(found.sequences, reference.numpy())
    assert found.sequences.shape[1] < 9


@pytest.mark.parametrize("beams", [1, 4])
def test_a_row_does_not_depend_on_its_batch(beams: int) -> None:
    table = random_table(5, 30, 2.0)
    facts = DecoderFacts(layers=1, heads=1, head_dim=1, vocab_size=30, max_positions=None, max_tokens=None, top_k=30)
    config = GenerationConfig(eos_token_id=2, pad_token_id=1, num_beams=beams, max_new_tokens=15)
    prompt = np.arange(8)[:, None]
    together = search(TableDecoder(table, 30), facts, prompt, config)
    for row in range(8):
        alone = search(TableDecoder(table, 30), facts, prompt[row : row + 1], config)
        length = alone.sequences.shape[1]
        np.testing.assert_array_equal(together.sequences[row, :length], alone.sequences[0])
        assert (together.sequences[row, length:] == 1).all()


@pytest.mark.parametrize("settings", [{"num_beams": 1}, {"num_beams": 2, "early_stopping": True}, {"do_sample": True}])
def test_an_utterance_that_has_ended_needs_no_token(settings: dict[str, Any]) -> None:
    end, table = 3, random_table(0, FACTS.vocab_size, 1.0)
    config = GenerationConfig(eos_token_id=end, pad_token_id=0, max_new_tokens=8, **settings)

    def first_ends_and_is_banned(sequences: Sequences, scores: Scores) -> Scores:
        scores[:, :, end] = -np.inf
        if sequences[0, 0, 0] == 1:
            scores[:] = -np.inf
            if sequences.shape[2] < 4:
                scores[0, :, [end, end + 1]] = [[0.0], [-1.0]]
        return scores

    options = CallOptions(logits_processor=[first_ends_and_is_banned], generator=np.random.default_rng(0))
    found = search(TableDecoder(table, FACTS.top_k), FACTS, np.array([[1], [2], [5]]), config, options)
    assert end in found.sequences[0]
    assert found.sequences.shape[1] == 9
    assert np.isfinite(found.sequences_scores).all()

    def all_is_banned(_: Sequences, scores: Scores) -> Scores:
        return np.full_like(scores, -np.inf)

    with pytest.raises(GenerationError, match=r"no token is possible|nothing can be drawn"):
        search(
            TableDecoder(table, FACTS.top_k),
            FACTS,
            np.array([[1]]),
            config,
            CallOptions(logits_processor=[all_is_banned]),
        )


@pytest.mark.parametrize("beams", [1, 3])
def test_a_processor_may_write_into_the_scores(beams: int) -> None:
    table, prompt = random_table(0, FACTS.vocab_size, 1.0), np.array([[1]])
    config = GenerationConfig(eos_token_id=3, pad_token_id=0, max_new_tokens=6, num_beams=beams)

    def in_place(_: Sequences, scores: Scores) -> Scores:
        scores[:, :, 3:9] = -np.inf
        return scores

    def copied(_: Sequences, scores: Scores) -> Scores:
        return in_place(_, scores.copy())

    found = [
        search(
            TableDecoder(table, FACTS.top_k),
            FACTS,
            prompt,
            config,
            CallOptions(logits_processor=[own], output_logits=True),
        )
        for own in (in_place, copied)
    ]
    np.testing.assert_array_equal(found[0].sequences, found[1].sequences)
    np.testing.assert_array_equal(found[0].token_logprobs, found[1].token_logprobs)
    np.testing.assert_array_equal(found[0].logits, found[1].logits)


class BrokenDecoder(TableDecoder):
    """Answers with logits that are not numbers for one utterance, from sequences of so many tokens on."""

    def __init__(self, broken: float, length: int, row: int) -> None:
        super().__init__(random_table(0, FACTS.vocab_size, 1.0), FACTS.top_k)
        self.broken, self.length, self.row = broken, length, row

    def _answers(self, full_vocab: bool) -> list[Candidates]:
        found = super()._answers(full_vocab)
        if self.sequences.shape[2] == self.length:  # the softmax of the graph makes NaN of all scores
            scores = np.full_like(found[self.row].scores, self.broken if full_vocab else np.nan)
            found[self.row] = Candidates(found[self.row].ids, scores, full_vocab=full_vocab, is_finite=False)
        return found


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("row", [0, 2])
@pytest.mark.parametrize(
    "settings",
    [{}, {"num_beams": 3}, {"num_beams": 3, "repetition_penalty": 1.3}, {"do_sample": True}, {"temperature": 0.5}],
    ids=str,
)
def test_logits_that_are_not_numbers_end_in_an_error_that_says_where(
    settings: dict[str, Any], row: int, length: int, broken: float
) -> None:
    config = GenerationConfig(eos_token_id=3, pad_token_id=0, max_new_tokens=6, min_new_tokens=6, **settings)
    prompt = np.array([[4], [9], [5]])
    with pytest.raises(
        GenerationError, match=rf"scores of step {length} are not finite for utterance {row} of the batch"
    ):
        search(
            BrokenDecoder(broken, length, row), FACTS, prompt, config, CallOptions(generator=np.random.default_rng(0))
        )


@pytest.mark.parametrize("returned", [1, 3])
def test_a_length_penalty_that_leaves_nothing_is_named(returned: int) -> None:
    table, prompt, tokens = random_table(0, FACTS.vocab_size, 1.0), np.array([[1]]), 8
    settings: dict[str, Any] = {
        "eos_token_id": 3,
        "pad_token_id": 0,
        "max_new_tokens": tokens,
        "min_new_tokens": tokens,
        "num_beams": 3,
        "num_return_sequences": returned,
    }

    def found(penalty: float) -> Any:
        config = GenerationConfig().updated({**settings, "length_penalty": penalty})
        return search(TableDecoder(table, FACTS.top_k), FACTS, prompt, config)

    reference = TableModel(table).generate(
        torch.from_numpy(prompt),
        attention_mask=torch.ones(prompt.shape),
        generation_config=ReferenceConfig(**settings, length_penalty=-7.5, use_cache=False),
    )
    above = found(-7.5)  # some -15 · 8 ** 7.5 = -9e7
    np.testing.assert_array_equal(above.sequences, reference.numpy())
    assert (above.sequences_scores > -1e9).all()
    assert (above.sequences_scores < -1e7).all()
    with pytest.raises(GenerationError, match=r"length_penalty is -12.0: a hypothesis scores -1e\+09 or less"):
        found(-12.0)
