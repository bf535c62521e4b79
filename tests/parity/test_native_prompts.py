"""Test the prompts of Canary, Cohere ASR and Seamless against those that transformers makes."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CohereAsrFeatureExtractor, CohereAsrProcessor, GenerationConfig, PreTrainedTokenizerFast

from native_models import native
from speech_export.families.canary import canary_prompt
from speech_export.families.cohere_asr import cohere_prompt
from speech_export.families.seamless import seamless_prompt
from speech_runtime import GenerationError
from speech_runtime.bundle.model_facts import PromptTemplate
from speech_runtime.generation.prompt_template import filled

SPECIAL = [
    *("<unk>", "▁", "<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>", "<|en|>", "<|de|>", "<|fr|>"),
    *("<|pnc|>", "<|nopnc|>", "<|noitn|>", "<|notimestamp|>", "<|nodiarize|>"),
]
TEMPLATE = (
    "{% set request = messages[0]['content'][0] %}<|startofcontext|><|startoftranscript|><|emo:undefined|>"
    "<|{{ request['source_language'] }}|><|{{ request['target_language'] }}|>"
    "{{ '<|pnc|>' if request['punctuation'] else '<|nopnc|>' }}<|noitn|><|notimestamp|><|nodiarize|>"
)
CONTEXT = SPECIAL.index("<|startofcontext|>")


def tokenizer(**keywords: Any) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({token: i for i, token in enumerate(SPECIAL)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, extra_special_tokens=SPECIAL[1:], **keywords)


def prompt(template: PromptTemplate | None, start: int, language: str | None) -> list[int]:
    assert template is not None
    return filled(template, (start,), language, None, no_detection)[0].tolist()


@pytest.mark.parametrize("start", [SPECIAL.index("▁"), CONTEXT])
@pytest.mark.parametrize("language", ["en", "de"])
def test_cohere_is_told_its_language(start: int, language: str) -> None:
    processor = CohereAsrProcessor(CohereAsrFeatureExtractor(), tokenizer())
    expected = processor.get_decoder_prompt_ids(language)
    made = cohere_prompt(GenerationConfig(decoder_start_token_id=start), native("cohere_asr").config, tokenizer(), "it")
    # transformers' generate puts the start token in front, unless it is there.
    assert prompt(made, start, language) == [*([] if expected[0] == start else [start]), *expected]
    with pytest.raises(GenerationError, match="language is missing; this model needs one of de, en, fr"):
        prompt(made, start, None)


@pytest.mark.parametrize("language", [None, "en", "de", "German"])
def test_canary_writes_in_the_language_of_the_speech(language: str | None) -> None:
    made = canary_prompt(
        GenerationConfig(decoder_start_token_id=CONTEXT), None, tokenizer(chat_template=TEMPLATE), "it"
    )
    token = {None: "<|en|>", "en": "<|en|>"}.get(language, "<|de|>")
    after = ("<|pnc|>", "<|noitn|>", "<|notimestamp|>", "<|nodiarize|>")
    expected = ["<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>", token, token, *after]
    assert prompt(made, CONTEXT, language) == [SPECIAL.index(each) for each in expected]


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
