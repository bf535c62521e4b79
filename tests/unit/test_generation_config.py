"""Generation settings: read, overridden, and refused with what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig as ReferenceConfig

from speech_runtime import GenerationConfig, GenerationError


def test_read_from_what_transformers_writes(tmp_path: Path) -> None:
    ReferenceConfig(decoder_start_token_id=1, eos_token_id=[2, 4], pad_token_id=0, num_beams=5).save_pretrained(
        tmp_path
    )
    config = GenerationConfig.from_file(tmp_path / "generation_config.json")
    assert (config.start_token_id, config.eos_token_ids, config.num_beams) == (1, (2, 4), 5)
    assert config.fill_token_id == 2  # beam search of transformers takes a padding token of 0 for none
    assert config.updated({"num_beams": 1}).fill_token_id == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beam": 4}, "num_beam is not a known field; known settings are"),
        ({"num_beams": 0}, "num_beams is 0, it must be at least 1"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences is 3 but num_beams only 2"),
        ({"num_beams": "four"}, "num_beams is 'four', expected int"),
        ({"early_stopping": "sometimes"}, "early_stopping is 'sometimes', expected bool or 'never'"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"do_sample": True}, "do_sample is not a known field"),
        ({"repetition_penalty": 1.2}, "repetition_penalty is not a known field"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        GenerationConfig().updated(settings)


def test_settings_without_effect_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"do_sample": False, "repetition_penalty": 1.0, "top_k": 50, "use_cache": True}))
    assert GenerationConfig.from_file(path) == GenerationConfig()


def test_a_file_that_asks_for_more_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"no_repeat_ngram_size": 3}))
    with pytest.raises(GenerationError, match=r"generation_config.json: no_repeat_ngram_size is not a known field"):
        GenerationConfig.from_file(path)


@pytest.mark.parametrize(
    ("settings", "prompt", "expected"),
    [
        ({}, 1, (0, 21)),
        ({"max_new_tokens": 5}, 3, (0, 8)),
        ({"max_length": 9, "max_new_tokens": 5}, 1, (0, 6)),
        ({"max_length": 9, "min_length": 4}, 2, (4, 9)),
        ({"max_length": 9, "min_new_tokens": 4}, 2, (6, 9)),
        ({"max_new_tokens": 63}, 1, (0, 64)),
    ],
)
def test_lengths_count_as_in_transformers(settings: dict[str, Any], prompt: int, expected: tuple[int, int]) -> None:
    assert GenerationConfig().updated(settings).length_range(prompt, 64) == expected


@pytest.mark.parametrize(
    ("settings", "prompt", "message"),
    [
        ({"max_new_tokens": 65}, 1, "do not fit the decoder's 64 positions; set max_new_tokens to 64 or less"),
        ({"max_length": 3}, 3, "nothing can be generated"),
    ],
)
def test_lengths_beyond_the_model_are_refused(settings: dict[str, Any], prompt: int, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        GenerationConfig().updated(settings).length_range(prompt, 64)


def test_a_missing_start_token_is_named() -> None:
    with pytest.raises(GenerationError, match="decoder_start_token_id is not set"):
        _ = GenerationConfig().start_token_id
