"""Test that each keyword of `transcribe` has an effect, and the same one on a clip alone and in a list."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Pair
from speech_runtime import AudioError, GenerationError, Transcription
from speech_runtime.audio import Samples
from speech_runtime.model import ClipKeywords

SAMPLING = {"do_sample": True, "temperature": 3.0}


def four_tokens(sequences: np.ndarray) -> np.ndarray:
    return np.full(len(sequences), sequences.shape[1] == 4)


def not_the_likeliest(_: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return np.where(scores == scores.max(axis=-1, keepdims=True), -np.inf, scores)


KEYWORDS: dict[str, tuple[dict[str, Any], object]] = {
    "num_beams": ({}, 4),
    "num_return_sequences": ({"num_beams": 3}, 3),
    "length_penalty": ({"num_beams": 3}, 2.0),
    "early_stopping": ({"num_beams": 5, "num_return_sequences": 5, "length_penalty": 2.0}, True),
    "max_new_tokens": ({}, 3),
    "max_length": ({}, 4),
    "min_new_tokens": ({}, 40),
    "min_length": ({}, 40),
    "do_sample": ({"temperature": 3.0}, True),
    "temperature": ({"do_sample": True}, 3.0),
    "top_k": (SAMPLING, 2),
    "top_p": (SAMPLING, 0.3),
    "min_p": (SAMPLING, 0.5),
    "typical_p": (SAMPLING, 0.3),
    "epsilon_cutoff": (SAMPLING, 0.3),
    "eta_cutoff": (SAMPLING, 0.5),
    "top_h": (SAMPLING, 0.2),
    "max_time": ({}, 0.0),
    "stop_strings": ({}, "e"),
    "repetition_penalty": ({}, 4.0),
    "no_repeat_ngram_size": ({}, 1),
    "bad_words_ids": ({}, [[9], [13, 11]]),
    "sequence_bias": ({}, [[[9], -20.0], [[13], 3.0]]),
    "exponential_decay_length_penalty": ({}, (2, 9.0)),
    "renormalize_logits": ({"num_beams": 3, "bad_words_ids": [[9], [13]]}, True),
    "remove_invalid_values": ({"num_beams": 2, "num_return_sequences": 2, "forced_bos_token_id": 9}, True),
    "decoder_start_token_id": ({}, 2),
    "eos_token_id": ({}, 9),
    "pad_token_id": ({}, 9),
    "forced_bos_token_id": ({}, 24),
    "forced_eos_token_id": ({"max_new_tokens": 4}, 2),
    "suppress_tokens": ({}, [9, 13]),
    "begin_suppress_tokens": ({}, [9, 13, 18, 19]),
    "logits_processor": ({"max_new_tokens": 8}, [not_the_likeliest]),
    "stopping_criteria": ({}, [four_tokens]),
    "decoder_input_ids": ({}, [0, 9, 13]),
}
"""For each keyword the settings that it needs beside it, and a value that changes something."""

NO_SETTINGS = {
    *(
        "generator",
        "stream",
        "streamer",
        "cancel",
        "language",
        "source_language",
        "task",
        "generation_config",
        "output_scores",
        "output_logits",
    )
}
"""Keywords with a test of their own, here, in `test_moving_over.py` or beside `generate`."""

UNSEEN = {"pad_token_id"}
"""Keywords whose effect lies behind the end token."""


@pytest.fixture(scope="module")
def clips(digits: Pair, references: dict[Path, str]) -> list[Samples]:
    """Clips in noise, so that the model is in doubt."""
    random = np.random.default_rng(3)
    clean = [digits.exported.load(file) for file in list(references)[:4]]
    return [(clip + random.standard_normal(clip.size) * clip.std()).astype(np.float32) for clip in clean]


def said(heard: Transcription | AudioError) -> list[tuple[str, list[int], str]]:
    assert isinstance(heard, Transcription)
    return [(one.text, one.tokens, one.finished) for one in (heard, *heard.alternatives)]


def scores(heard: Any) -> list[float]:
    return [one.score for one in (heard, *heard.alternatives)]


def test_the_list_of_keywords_is_whole() -> None:
    assert set(KEYWORDS) | NO_SETTINGS == set(ClipKeywords.__annotations__)


@pytest.mark.parametrize("name", KEYWORDS)
def test_a_keyword_does_the_same_in_a_list(digits: Pair, clips: list[Samples], name: str) -> None:
    model, (beside, value) = digits.exported, KEYWORDS[name]

    def heard(batch: list[Samples], batch_size: int, **settings: Any) -> list[Transcription | AudioError]:
        if "decoder_input_ids" in settings:
            settings["decoder_input_ids"] = [settings["decoder_input_ids"]] * len(batch)
        generator = np.random.default_rng(7)  # of a batch: the draws of a clip depend on those before it
        return list(model.transcribe_iter(batch, batch_size=batch_size, generator=generator, **settings))

    chosen = {**beside, name: value}
    random = bool(chosen.get("do_sample"))
    listed = [heard([clip], 8, **chosen)[0] for clip in clips] if random else heard(clips, 8, **chosen)
    alone = [heard([clip], 1, **chosen)[0] for clip in clips]
    plain = [heard([clip], 1, **beside)[0] for clip in clips]
    assert list(map(said, listed)) == list(map(said, alone))
    for one, other in zip(listed, alone, strict=True):
        np.testing.assert_allclose(scores(one), scores(other), atol=1e-4)
    changed = [
        (said(one), scores(one)) != (said(other), scores(other)) for one, other in zip(alone, plain, strict=True)
    ]
    assert any(changed) != (name in UNSEEN)


def test_a_seed_draws_the_same_again_in_a_list(digits: Pair, clips: list[Samples]) -> None:
    def drawn(seed: int) -> list[str]:
        generator = np.random.default_rng(seed)
        return digits.exported.transcribe(clips, generator=generator, do_sample=True, temperature=3.0)

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_cancel_stops_a_list(digits: Pair, clips: list[Samples]) -> None:
    cancel = threading.Event()
    cancel.set()
    found = list(digits.exported.transcribe_iter(clips, cancel=cancel))
    assert [said(one) for one in found] == [[("", [], "stopped")]] * len(clips)


@pytest.mark.parametrize("name", ["output_scores", "output_logits"])
def test_what_a_transcription_has_no_place_for_is_refused(digits: Pair, clips: list[Samples], name: str) -> None:
    with pytest.raises(GenerationError, match=rf"{name}: .* call generate\(\) instead"):
        digits.exported.transcribe(clips, **{name: True})
    assert digits.exported.transcribe(clips, **{name: False}) == digits.exported.transcribe(clips)
