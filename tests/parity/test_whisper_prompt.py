"""Test Whisper's prompt: the template of a checkpoint, filled in for any call, against that of transformers."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig, WhisperForConditionalGeneration

from native_models import (
    ENGLISH,
    GERMAN,
    MULTILINGUAL,
    NO_TIMESTAMPS,
    START,
    TRANSCRIBE,
    TRANSLATE,
    whisper,
    whisper_tokenizer,
)
from speech_export import ExportError
from speech_export.families.whisper import whisper_prompt
from speech_runtime import GenerationError
from speech_runtime.bundle.model_facts import PromptTemplate
from speech_runtime.generation.prompt_template import filled

LEGACY = [
    None,
    [[1, None], [2, TRANSCRIBE]],
    [[1, GERMAN], [2, TRANSLATE], [3, NO_TIMESTAMPS]],
    [[1, ENGLISH]],
]


@pytest.fixture(scope="module")
def model() -> WhisperForConditionalGeneration:
    return whisper()


def template(model: WhisperForConditionalGeneration, settings: dict[str, Any], **tokens: Any) -> PromptTemplate:
    return whisper_prompt(GenerationConfig(**settings), model.config, tokens.get("tokenizer"), "the model")


@given(
    legacy=st.sampled_from(LEGACY),
    stored=st.fixed_dictionaries(
        {}, optional={"language": st.sampled_from(["de", "French", "<|en|>"]), "task": st.sampled_from(["translate"])}
    ),
    language=st.sampled_from([None, "en", "german", "GERMAN", "<|fr|>", ["en", "de"], ["fr", "fr"]]),
    task=st.sampled_from([None, "translate", "transcribe"]),
    seed=st.integers(0, 3),
)
def test_prompts_are_those_of_transformers(
    model: WhisperForConditionalGeneration,
    legacy: list[list[int | None]] | None,
    stored: dict[str, str],
    language: str | list[str] | None,
    task: str | None,
    seed: int,
) -> None:
    settings: dict[str, Any] = {**MULTILINGUAL, **stored, "forced_decoder_ids": legacy}
    config = GenerationConfig(decoder_start_token_id=START, return_timestamps=False, **settings)
    features = torch.randn(2, 20, 100, generator=torch.Generator().manual_seed(seed))
    of_call = copy.deepcopy(config)
    model._set_language_and_task(language, task, None, of_call)
    expected = model._retrieve_init_tokens(features, 2, of_call, model.config, 100, {})

    def detect(starts: Any) -> Any:
        with torch.no_grad():
            return model(features, decoder_input_ids=torch.from_numpy(starts)).logits[:, -1].numpy()

    found = filled(template(model, settings), (START, START), language, task, detect)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("legacy", [None, [[1, NO_TIMESTAMPS]]])
def test_an_english_model_has_no_choice(model: WhisperForConditionalGeneration, legacy: list[list[int]] | None) -> None:
    settings = {"is_multilingual": False, "no_timestamps_token_id": NO_TIMESTAMPS, "forced_decoder_ids": legacy}
    english = template(model, settings)
    assert filled(english, (START,), None, None, no_detection).tolist() == [[START, NO_TIMESTAMPS]]
    with pytest.raises(GenerationError, match="language is 'en', and this model has none to choose from; leave"):
        filled(english, (START,), "en", None, no_detection)
    with pytest.raises(GenerationError, match="task is 'translate', and this model has none to choose from; leave"):
        filled(english, (START,), None, "translate", no_detection)


def test_settings_that_are_missing_are_read_from_the_vocabulary(
    model: WhisperForConditionalGeneration, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"is_multilingual": True}
    found = template(model, settings, tokenizer=whisper_tokenizer())
    assert "have no lang_to_id and no task_to_id and no no_timestamps_token_id; they are read from" in caplog.text
    assert found == template(model, MULTILINGUAL)


@pytest.mark.parametrize(
    ("language", "task", "message"),
    [
        ("xx", None, "language is 'xx', this model has de, en, fr"),
        (["en", "yy"], None, "language is 'yy', this model has de, en, fr"),
        (["en", "de"], None, "language has 2 languages for 3 utterances; give one for each"),
        (5, None, "language is 5, it must be a language such as 'de'"),
        (b"de", None, "language is b'de', it must be"),
        ([None, "de", "de"], None, "language is None, this model has"),
        (None, "sing", "task is 'sing', this model has transcribe, translate"),
        (None, ["translate"] * 3, r"task is \['translate', 'translate', 'translate'\], this model has"),
    ],
)
def test_what_the_model_lacks_is_named(
    model: WhisperForConditionalGeneration, language: Any, task: Any, message: str
) -> None:
    with pytest.raises(GenerationError, match=message):
        filled(template(model, MULTILINGUAL), (START,) * 3, language, task, no_detection)


def test_a_language_that_must_be_given_is_asked_for() -> None:
    needy = PromptTemplate(("language",), None, {"en": ENGLISH, "english": ENGLISH, "de": GERMAN}, {})
    with pytest.raises(GenerationError, match="language is missing; this model needs one of de, en"):
        filled(needy, (START,), None, None, no_detection)
    assert needy.example_language == "en"


def test_forced_decoder_ids_that_are_no_prompt_are_refused(model: WhisperForConditionalGeneration) -> None:
    with pytest.raises(ExportError, match=r"forced_decoder_ids is .*, and a prompt of Whisper has a token for each"):
        template(model, {**MULTILINGUAL, "forced_decoder_ids": [[2, TRANSCRIBE]]})


def no_detection(_: Any) -> Any:
    raise AssertionError("no language had to be detected")
