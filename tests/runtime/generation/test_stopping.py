"""Test how sequences end, and what stops them early: `finished` of every search."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from speech_runtime.bundle.model_facts import DecoderFacts
from speech_runtime.bundle.vocabulary import Vocabulary
from speech_runtime.errors import GenerationError
from speech_runtime.generation import call
from speech_runtime.generation.call import generate
from speech_runtime.generation.call_options import CallOptions
from speech_runtime.generation.config import GenerationConfig
from speech_runtime.generation.generator import SpeechGenerator
from speech_runtime.generation.language import with_language
from speech_runtime.generation.output import GenerateOutput
from speech_runtime.generation.prompts import prompts
from table_model import TableDecoder, random_table

VOCABULARY, END = 20, 2
FACTS = DecoderFacts(
    layers=1, heads=1, head_dim=1, vocab_size=VOCABULARY, max_positions=None, max_tokens=None, top_k=VOCABULARY
)
TABLE = random_table(5, VOCABULARY, 3.0)
BEAMS = pytest.mark.parametrize("beams", [1, 3])


def search(
    given: Any = ((1,),), options: CallOptions | None = None, table: NDArray[np.float32] = TABLE, **settings: Any
) -> GenerateOutput:
    config = GenerationConfig(decoder_start_token_id=1, eos_token_id=END, pad_token_id=0).updated(settings)
    start = config.start_token_ids(len(given))
    return generate(
        lambda utterances, longest: TableDecoder(table, VOCABULARY),
        *(
            FACTS,
            None,
            config,
            prompts(list(map(list, given)), start, Vocabulary(VOCABULARY)),
            options or CallOptions(),
        ),
    )


def natural_length(beams: int) -> int:
    found = search(num_beams=beams, max_new_tokens=60, length_penalty=0.0)  # which does not favour what goes on
    assert found.finished.tolist() == ["end"]
    assert found.sequences[0, found.lengths[0] - 1] == END
    return int(found.lengths[0]) - 1


def test_one_token_less_than_it_needs_is_a_cut_and_no_other() -> None:
    needed = natural_length(1)
    assert needed > 2
    for limit, finished in ((needed - 1, "length"), (needed, "end"), (needed + 1, "end")):
        found = search(max_new_tokens=limit)
        assert found.finished.tolist() == [finished], limit
        assert (found.sequences[0, : found.lengths[0]] == END).sum() == (finished == "end")


@BEAMS
def test_without_an_end_token_the_length_cuts_it(beams: int) -> None:
    found = search(num_beams=beams, num_return_sequences=beams, max_new_tokens=6, eos_token_id=None)
    assert found.finished.tolist() == ["length"] * beams
    assert found.lengths.tolist() == [7] * beams


@BEAMS
def test_an_end_that_is_forced_at_the_limit_is_a_cut(beams: int) -> None:
    needed = natural_length(beams)
    found = search(num_beams=beams, max_new_tokens=needed - 1, forced_eos_token_id=END, length_penalty=0.0)
    assert found.sequences[0, -1] == END
    assert found.finished.tolist() == ["length"]
    long = search(num_beams=beams, max_new_tokens=60, forced_eos_token_id=END, length_penalty=0.0)
    assert long.finished.tolist() == ["end"]


@BEAMS
def test_a_criterion_of_the_caller_is_an_end_also_at_the_limit(beams: int) -> None:
    def five(sequences: np.ndarray) -> np.ndarray:
        return np.full(len(sequences), sequences.shape[1] == 5)

    options = CallOptions(stopping_criteria=[five])
    for limit in (4, 9):
        found = search(num_beams=beams, options=options, eos_token_id=None, max_new_tokens=limit)
        assert (found.finished.tolist(), found.lengths.tolist()) == (["end"], [5])


@BEAMS
def test_time_and_cancel_are_told_apart(beams: int) -> None:
    cancel = threading.Event()
    cancel.set()
    cancelled = search(num_beams=beams, options=CallOptions(cancel=cancel), max_new_tokens=9, min_new_tokens=5)
    late = search(num_beams=beams, max_time=0, max_new_tokens=9, min_new_tokens=5)
    assert (cancelled.finished.tolist(), late.finished.tolist()) == (["stopped"], ["time"])


def test_what_had_ended_before_the_cancel_is_whole() -> None:
    """Two prompts, of which one ends first; the search is cancelled in between."""
    given = [(1, first) for first in range(3, 11)]
    lengths = search(given, max_new_tokens=60).lengths
    step = int(np.median(lengths)) - 2
    assert lengths.min() - 2 <= step < lengths.max() - 2
    cancel = threading.Event()

    def count(sequences: np.ndarray, scores: np.ndarray) -> np.ndarray:
        if sequences.shape[2] - 1 == step:
            cancel.set()
        return scores

    found = search(given, CallOptions(cancel=cancel, logits_processor=[count]), max_new_tokens=60)
    assert found.finished.tolist() == ["end" if length - 2 <= step else "stopped" for length in lengths]


def test_prompts_of_different_lengths_keep_their_order() -> None:
    given = [(1, 4), (1,), (1, 5, 6), (1, 7)]
    found = search(given, max_new_tokens=4)
    alone = [search([prompt], max_new_tokens=4) for prompt in given]
    assert found.finished.tolist() == [one.finished[0] for one in alone]
    assert found.lengths.tolist() == [one.lengths[0] for one in alone]
    for row, one in zip(found.sequences, alone, strict=True):
        np.testing.assert_array_equal(row[: one.lengths[0]], one.sequences[0])


def test_padding_follows_a_criterion_also_where_there_is_no_end_token() -> None:
    given = [(1, 4), (1, 7), (1, 9)]

    def first_ends(sequences: np.ndarray) -> np.ndarray:
        return (sequences[:, 1] == 4) & (sequences.shape[1] >= 4)

    options = CallOptions(stopping_criteria=[first_ends])
    found = search(given, options, eos_token_id=None, pad_token_id=0, max_new_tokens=6)
    assert found.lengths.tolist() == [4, 8, 8]
    assert (found.sequences[0, 4:] == 0).all()


@BEAMS
def test_beam_indices_are_rows_of_the_whole_batch(beams: int) -> None:
    given = [(1, 4), (1,), (1, 5)]
    found = search(given, num_beams=beams, num_return_sequences=beams, max_new_tokens=4)
    utterance = np.arange(3).repeat(beams)[:, None]
    said = found.beam_indices >= 0
    assert (found.beam_indices // beams == utterance)[said].all()
    assert said.any(axis=1).all()


def test_every_sample_ends_by_itself() -> None:
    options = CallOptions(generator=np.random.default_rng(3))
    found = search(options=options, do_sample=True, num_return_sequences=12, max_new_tokens=8)
    last = found.sequences[np.arange(12), found.lengths - 1]
    assert (found.finished == np.where(last == END, "end", "length")).all()
    assert set(found.finished) == {"end", "length"}


@BEAMS
@pytest.mark.parametrize("none", [None, -1])
def test_the_last_word_of_the_vocabulary_is_said_where_there_is_no_end(none: int | None, beams: int) -> None:
    """-1 for none must not stand for the last token: neither banned, nor the end, nor padding."""
    table = TABLE.copy()
    table[:, -1] = TABLE.max() + 5
    given = [(1,), (1, 3, 4, 5, 6, 7)]
    settings = {"eos_token_id": none, "pad_token_id": none, "min_new_tokens": 4, "max_new_tokens": 6}
    found = search(given, table=table, num_beams=beams, **settings)
    for row, prompt, length in zip(found.sequences, given, found.lengths, strict=True):
        assert row[len(prompt) : length].tolist() == [VOCABULARY - 1] * 6


@BEAMS
def test_a_minimum_of_new_tokens_does_not_count_the_prompt(beams: int) -> None:
    table = TABLE.copy()
    table[:, END] = TABLE.max() + 5
    given = [(1,), (1, 3, 4, 5, 6, 7)]
    found = search(given, table=table, num_beams=beams, min_new_tokens=4, max_new_tokens=9, length_penalty=0.0)
    assert (found.lengths - [1, 6]).tolist() == [5, 5]
    assert found.finished.tolist() == ["end", "end"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"cancel": True}, "cancel is True, it must be a threading.Event"),
        ({"cancel": False}, "cancel is False"),
        ({"stream": True}, "stream is True, it must be a function that takes text, such as print"),
        ({"stream": "print"}, "stream is 'print'"),
        ({"logits_processor": print}, "logits_processor is <built-in function print>, it must be a list of functions"),
        ({"logits_processor": [None]}, r"logits_processor is \[None\]"),
        ({"logits_processor": "ab"}, "logits_processor is 'ab'"),
        ({"stopping_criteria": print}, "stopping_criteria is <built-in function print>, it must be a list"),
        ({"generator": 0}, "generator is 0, it must be a numpy.random.Generator"),
        ({"generator": torch.Generator()}, "generator is <torch.*it must be a numpy.random.Generator"),
        ({"output_scores": "x"}, "output_scores is 'x', it must be True or False"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_an_option_of_another_kind_is_named(option: dict[str, Any], words: str) -> None:
    with pytest.raises(GenerationError, match=words):
        CallOptions.split(option)


def test_what_is_an_option_is_taken_and_the_rest_are_settings() -> None:
    given: dict[str, Any] = {"cancel": threading.Event(), "stream": print, "output_scores": np.True_, "generator": None}
    options, settings = CallOptions.split({**given, "num_beams": 2})
    assert options.cancel is given["cancel"]
    assert settings == {"num_beams": 2}


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize(
    ("answer", "returned"),
    [
        (lambda _: None, "None"),
        (lambda z: z[..., :3], r"float32 \[1, 1, 3\]"),
        (lambda z: z[0, 0], r"float32 \[\d+\]"),
        (lambda _: 0.0, r"float64 \[\]"),
        (lambda z: z.astype("U"), r"<U32 "),
        (lambda z: z.astype("c8"), "complex64 "),
        (lambda z: z.astype("i8"), "int64 "),
        (lambda _: [[1.0], [1.0, 2.0]], "a list that is not an array"),
    ],
)
def test_scores_of_another_shape_or_kind_are_refused(answer: Any, returned: str, beams: int) -> None:
    def own(_: Any, scores: Any) -> Any:
        return answer(scores)

    expected = rf"logits_processor\[0\] \(.*own\) returned {returned}.*it must return floating-point values \[1, 1, "
    with pytest.raises(GenerationError, match=expected):
        search(num_beams=beams, options=CallOptions(logits_processor=[own]), max_new_tokens=3)


@pytest.mark.parametrize("answer", [None, "no", False, [np.nan], [0], [True] * 7, [[True]]], ids=str)
def test_ends_of_another_shape_or_kind_are_refused(answer: Any) -> None:
    def own(_: Any) -> Any:
        return answer

    expected = r"stopping_criteria\[0\] \(.*own\) returned .*; it must return boolean values \[1\]"
    with pytest.raises(GenerationError, match=expected):
        search(options=CallOptions(stopping_criteria=[own]), max_new_tokens=3)


@pytest.mark.parametrize("beams", [1, 3])
def test_own_functions_cannot_write_into_the_sequences(beams: int) -> None:
    def scores_of(sequences: Any, scores: Any) -> Any:
        sequences[:] = 5
        return scores.astype(np.float64).tolist()

    def ends_of(sequences: Any) -> Any:
        sequences[:] = 5
        return [False] * len(sequences)

    options = CallOptions(logits_processor=[scores_of], stopping_criteria=[ends_of])
    plain = search(num_beams=beams, max_new_tokens=5)
    found = search(num_beams=beams, max_new_tokens=5, options=options)
    np.testing.assert_array_equal(found.sequences, plain.sequences)


@pytest.mark.parametrize(
    ("settings", "rows", "named"),
    [
        ({"do_sample": True, "num_return_sequences": 1000}, 1000, "num_return_sequences 1,000 × 1 utterances need"),
        ({"num_beams": 8, "num_return_sequences": 4}, 8, "num_beams 8 × 1 utterances need"),
        ({"num_beams": 2, "max_new_tokens": 100_000}, 2, "num_beams 2 × 1 utterances need"),
    ],
    ids=str,
)
def test_rows_that_do_not_fit_are_refused(
    settings: dict[str, Any], rows: int, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"max_new_tokens": 5, **settings}
    seen = min(settings["max_new_tokens"], 64)  # the last token is never in the cache, but the start token is
    needed = rows * 4 * (2 * seen + VOCABULARY)  # one layer, one head of one number
    monkeypatch.setattr(call, "_UNCHECKED_BYTES", 0)
    monkeypatch.setattr(call, "free_memory_bytes", lambda: needed - 1)
    with pytest.raises(GenerationError, match=f"{named} .* for their {rows:,} rows"):
        search(**settings)
    monkeypatch.setattr(call, "free_memory_bytes", lambda: needed)
    if settings["max_new_tokens"] == 5:
        search(**settings)


@pytest.mark.parametrize("prompt", ["x", [["a"]], {"a": [0]}, [[1], [1, 2]], 5, [5, [1, 2]], [[[1], [2, 3]]]], ids=str)
def test_a_prompt_that_is_no_token_ids_is_named(prompt: Any) -> None:
    with pytest.raises(GenerationError, match="decoder_input_ids "):
        prompts(prompt, (1,), Vocabulary(VOCABULARY))


@pytest.mark.parametrize("language", [5, b"de", [5], {"de": 1}], ids=str)
def test_a_language_that_is_none_is_named(language: Any) -> None:
    with pytest.raises(GenerationError, match="language"):
        with_language(GenerationConfig(decoder_start_token_id=1), Tokenizer(WordLevel({"a": 0}, "a")), language, 1)


@pytest.mark.parametrize("given", [{"hidden_states": 1}, (1, 2), np.ones(3)], ids=str)
def test_encoder_outputs_of_another_kind_are_named(given: Any) -> None:
    with pytest.raises(GenerationError, match="encoder_outputs is of type .*, it must be the result of encode"):
        SpeechGenerator._encoded(None, given, None)
