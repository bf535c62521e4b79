"""Test prompts that contain the end token against transformers: text, tokens, alternatives and streams."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from conftest import CHECKPOINT, Pair
from speech_runtime.audio import Samples

END, PAD = 2, 1
PROMPTS = {
    "an end behind the start": [0, END],
    "a whole text before": [0, 9, 13, 11, 12, 24, END],
    "an end first": [END, 0],
    "an end alone": [END],
    "two ends": [0, END, 9, END],
    "an end amid words": [0, 9, END, 13],
    "none": [0, 9],
}


@pytest.fixture(scope="module")
def clips(digits: Pair, references: dict[Path, str]) -> list[Samples]:
    return [digits.exported.load(file) for file in list(references)[:3]]


def expected(digits: Pair, clips: list[Samples], **settings: Any) -> tuple[list[str], list[list[int]]]:
    """Texts and tokens without padding, as transformers' generate and tokenizer give them."""
    extractor = digits.exported.feature_extractor
    assert extractor is not None
    inputs, mask = map(torch.from_numpy, extractor(clips))
    with torch.no_grad():
        sequences = digits.reference.generate(inputs, attention_mask=mask, **settings).tolist()
    texts = AutoTokenizer.from_pretrained(CHECKPOINT).batch_decode(sequences, skip_special_tokens=True)
    for sequence in sequences:
        while sequence[-1] == PAD:
            sequence.pop()
    return texts, sequences


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_text_tokens_and_alternatives(digits: Pair, clips: list[Samples], prompt: list[int], beams: int) -> None:
    settings: dict[str, Any] = {"num_beams": beams, "num_return_sequences": beams}
    given = [prompt] * len(clips)
    texts, tokens = expected(digits, clips, decoder_input_ids=torch.tensor(given), **settings)
    heard = list(digits.exported.transcribe_iter(clips, batch_size=len(clips), decoder_input_ids=given, **settings))
    found = [one for best in heard for one in (best, *best.alternatives)]
    assert [one.text for one in found] == texts
    assert [one.tokens for one in found] == tokens
    assert all(one.finished == "end" for one in found)
    if beams == 1:
        assert digits.exported.transcribe(clips, decoder_input_ids=given) == texts


@pytest.mark.parametrize("beams", [1, 3])
def test_a_start_token_that_is_the_end_token(digits: Pair, clips: list[Samples], beams: int) -> None:
    texts, tokens = expected(digits, clips, decoder_start_token_id=END, num_beams=beams)
    heard = list(
        digits.exported.transcribe_iter(clips, batch_size=len(clips), decoder_start_token_id=END, num_beams=beams)
    )
    assert [(one.text, one.tokens) for one in heard] == list(zip(texts, tokens, strict=True))
    assert any(texts)


def test_prompts_of_different_lengths_among_them(digits: Pair, clips: list[Samples]) -> None:
    given = [PROMPTS["an end behind the start"], PROMPTS["a whole text before"], PROMPTS["none"]]
    alone = [
        expected(digits, [clip], decoder_input_ids=torch.tensor([prompt]))
        for clip, prompt in zip(clips, given, strict=True)
    ]
    heard = list(digits.exported.transcribe_iter(clips, batch_size=len(clips), decoder_input_ids=given))
    assert [([one.text], [one.tokens]) for one in heard] == alone


@pytest.mark.parametrize("beams", [1, 3])
def test_a_stream_says_what_is_new(digits: Pair, clips: list[Samples], beams: int) -> None:
    prompt = PROMPTS["a whole text before"]
    parts: list[str] = []
    (whole,), _ = expected(digits, clips[:1], decoder_input_ids=torch.tensor([prompt]), num_beams=beams)
    digits.exported.transcribe(clips[:1], decoder_input_ids=[prompt], num_beams=beams, stream=parts.append)
    before = AutoTokenizer.from_pretrained(CHECKPOINT).decode(prompt, skip_special_tokens=True)
    assert before + "".join(parts) == whole


def test_a_stop_string_of_the_prompt_does_not_count(digits: Pair, clips: list[Samples]) -> None:
    prompt = PROMPTS["a whole text before"]
    said = AutoTokenizer.from_pretrained(CHECKPOINT).decode(prompt, skip_special_tokens=True).strip()
    free, stopped = (
        digits.exported.transcribe(clips[0], decoder_input_ids=[prompt], **settings)
        for settings in ({}, {"stop_strings": [f"{said}{said}"]})
    )
    assert free == stopped


@pytest.mark.parametrize("beams", [1, 3])
def test_a_padding_token_that_is_a_word_is_not_heard(digits: Pair, clips: list[Samples], beams: int) -> None:
    alone = [digits.exported.transcribe(clip, num_beams=beams) for clip in clips]
    assert len({len(text) for text in alone}) > 1
    assert digits.exported.transcribe(clips, num_beams=beams, pad_token_id=9) == alone
    parts: list[str] = []
    digits.exported.generate(
        *digits.exported.feature_extractor(clips[:1]), num_beams=beams, pad_token_id=9, stream=parts.append
    )
    assert "".join(parts) == alone[0]


def test_rows_that_stop_early_without_an_end_token_are_cut_where_they_stop(digits: Pair, clips: list[Samples]) -> None:
    settings: dict[str, Any] = {"eos_token_id": None, "stop_strings": ["e"], "max_new_tokens": 20}
    alone = list(digits.exported.transcribe_iter(clips, batch_size=1, **settings))
    together = list(digits.exported.transcribe_iter(clips, batch_size=len(clips), **settings))
    assert [(one.text, one.tokens, one.finished) for one in together] == [
        (one.text, one.tokens, one.finished) for one in alone
    ]
    assert len({len(one.tokens) for one in together}) > 1
    assert np.all([one.text.count("e") == (one.finished == "end") for one in together])
