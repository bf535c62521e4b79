"""Test the prompts of Canary, Cohere ASR and Seamless against those that transformers makes."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    CanaryProcessor,
    CohereAsrFeatureExtractor,
    CohereAsrProcessor,
    GenerationConfig,
    ParakeetFeatureExtractor,
)

from native_checkpoints import CANARY_TEMPLATE, CONTEXT, NEMO_TOKENS, word_tokenizer
from native_models import native
from speech_export.families.canary import canary_prompt
from speech_export.families.cohere_asr import cohere_prompt
from speech_export.families.seamless import seamless_prompt
from speech_runtime import GenerationError
from speech_runtime.bundle.model_facts import PromptTemplate
from speech_runtime.generation.prompt_template import filled

TOKENIZER = word_tokenizer(NEMO_TOKENS)
BEFORE, START = TOKENIZER.convert_tokens_to_ids(["▁", CONTEXT])


def prompt(
    template: PromptTemplate | None, start: int, language: str | None, source_language: str | None = None
) -> list[int]:
    assert template is not None
    return filled(template, (start,), language, None, no_detection, source_language)[0].tolist()


def canary(template: str | None = CANARY_TEMPLATE) -> PromptTemplate | None:
    tokenizer = word_tokenizer(NEMO_TOKENS, chat_template=template)
    return canary_prompt(GenerationConfig(decoder_start_token_id=START), None, tokenizer, "it")


@pytest.mark.parametrize("start", [BEFORE, START])
@pytest.mark.parametrize("language", ["en", "de"])
def test_cohere_is_told_its_language(start: int, language: str) -> None:
    processor = CohereAsrProcessor(CohereAsrFeatureExtractor(), TOKENIZER)
    expected = processor.get_decoder_prompt_ids(language)
    made = cohere_prompt(GenerationConfig(decoder_start_token_id=start), native("cohere_asr").config, TOKENIZER, "it")
    # transformers' generate puts the start token in front, unless it is there.
    assert prompt(made, start, language) == [*([] if expected[0] == start else [start]), *expected]
    with pytest.raises(GenerationError, match="language is missing; this model needs one of de, en, fr"):
        prompt(made, start, None)


@pytest.mark.parametrize(
    ("source", "language", "request_of_transformers"),
    [
        (None, None, {}),
        (None, "de", {"source_language": "de"}),
        (None, "German", {"source_language": "German"}),
        ("de", None, {"source_language": "de"}),
        ("de", "en", {"source_language": "de", "target_language": "en"}),
        ("French", "german", {"source_language": "fr", "target_language": "German"}),
    ],
)
def test_canary_is_told_the_languages_of_speech_and_text(
    source: str | None, language: str | None, request_of_transformers: dict[str, str]
) -> None:
    tokenizer = word_tokenizer(NEMO_TOKENS)
    processor = CanaryProcessor(ParakeetFeatureExtractor(), tokenizer, chat_template=CANARY_TEMPLATE)
    asked = processor.apply_transcription_request(np.zeros(16000, np.float32), **request_of_transformers)
    assert prompt(canary(), START, language, source) == asked["decoder_input_ids"][0].tolist()


def test_canary_names_the_languages_that_it_has() -> None:
    with pytest.raises(GenerationError, match="source_language is 'xx', this model has de, en, fr"):
        prompt(canary(), START, "de", "xx")
    with pytest.raises(GenerationError, match="language is 'xx', this model has de, en, fr"):
        prompt(canary(), START, "xx", "de")
    with pytest.raises(GenerationError, match="source_language has 2 languages for 1 utterances; give one for each"):
        prompt(canary(), START, "de", ["en", "fr"])


@pytest.mark.parametrize(
    "template",
    [
        None,
        "<|startoftranscript|><|en|><|en|>",
        "<|startoftranscript|><|{{ messages[0]['content'][-1]['target_language'] }}|>",
        CANARY_TEMPLATE + "{{ '<|pnc|>' if messages[0]['content'][-1]['source_language'] != 'en' }}",
    ],
)
def test_a_template_that_cannot_be_filled_in_is_left_to_the_caller(
    template: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert canary(template) is None
    assert "as decoder_input_ids" in caplog.text


@pytest.mark.parametrize("family", ["cohere", "seamless"])
def test_other_models_are_not_told_the_language_of_the_speech(family: str) -> None:
    settings = GenerationConfig(decoder_start_token_id=START, text_decoder_lang_to_code_id={"de": 20})
    make = {"cohere": cohere_prompt, "seamless": seamless_prompt}[family]
    with pytest.raises(GenerationError, match="source_language is 'de', and this model is not told the language of"):
        prompt(make(settings, None, TOKENIZER, "it"), START, "de", "de")


@pytest.mark.parametrize("family", ["canary", "cohere"])
def test_without_its_tokens_a_prompt_is_left_to_the_caller(family: str, caplog: pytest.LogCaptureFixture) -> None:
    make = {"canary": canary_prompt, "cohere": cohere_prompt}[family]
    assert make(GenerationConfig(decoder_start_token_id=4), None, None, "the model") is None
    assert "as decoder_input_ids" in caplog.text


@pytest.mark.parametrize("family", ["seamless_m4t", "seamless_m4t_v2"])
def test_seamless_is_told_the_language_of_the_text(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = native(family)
    model.generation_config.text_decoder_lang_to_code_id = {"eng": 20, "deu": 21}
    features = torch.randn(2, 60, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.generate(features, tgt_lang="deu", max_new_tokens=1)
    made = seamless_prompt(model.generation_config, model.config, None, "the model")
    start = model.generation_config.decoder_start_token_id
    assert [prompt(made, start, "deu")] * 2 == expected[:, :2].tolist()
    assert prompt(made, start, "__deu__") == prompt(made, start, "deu")
    assert prompt(made, start, None) == [start]


def no_detection(_: Any) -> Any:
    raise AssertionError("no language had to be detected")
