"""Canary, whose prompt is the chat template of its checkpoint, with the language of the speech and that of the text."""

import logging
from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, PretrainedConfig
from transformers.models.canary.processing_canary import LANGUAGE_CODE_TO_NAME

from speech_runtime.bundle.model_facts import PromptTemplate

from .prompt_tokens import Place, after_start, language_tokens, vocabulary_of
from .registry import NativeFamily, register_native

logger = logging.getLogger(__name__)

_DEFAULT = "en"


def canary_prompt(
    settings: GenerationConfig, _: PretrainedConfig, tokenizer: Any | None, source: str
) -> PromptTemplate | None:
    """Return the prompt with places for the languages of speech and text; None, with a warning, if it is not known.

    It is that of transformers' `CanaryProcessor.apply_transcription_request`, with punctuation.
    """
    languages = language_tokens(vocabulary_of(tokenizer), LANGUAGE_CODE_TO_NAME)
    tokens = _places(tokenizer, languages)
    if tokens is None:
        logger.warning(
            "%s has no chat template with places for two languages, or fewer than two languages in its vocabulary: its "
            "prompt is not known. Give it in each call, as decoder_input_ids.",
            source,
        )
        return None
    named = {LANGUAGE_CODE_TO_NAME[code].lower(): token for code, token in languages.items()}
    return PromptTemplate(
        tokens=after_start(tokens, settings),
        by_default=None,
        languages={**named, **languages},
        tasks={},
        language=_DEFAULT,
    )


def _places(tokenizer: Any | None, languages: Mapping[str, int]) -> list[Place] | None:
    """Return the tokens of the chat template, with places for the languages; None if they are not known."""
    if _DEFAULT not in languages or len(languages) < 2 or getattr(tokenizer, "chat_template", None) is None:
        return None
    other = next(code for code in languages if code != _DEFAULT)
    names: dict[int, Place] = {languages[other]: "source_language", languages[_DEFAULT]: "language"}
    places = [names.get(token, token) for token in _rendered(tokenizer, other, _DEFAULT)]
    if not {*names.values()} <= {*places}:
        return None
    in_one_language = [languages[_DEFAULT] if isinstance(place, str) else place for place in places]
    return places if in_one_language == _rendered(tokenizer, _DEFAULT, _DEFAULT) else None


def _rendered(tokenizer: Any, source_language: str, language: str) -> list[int]:
    request = {
        "type": "text",
        "source_language": source_language,
        "target_language": language,
        "punctuation": True,
    }
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": [request]}], tokenize=False, add_generation_prompt=True
    )
    tokens: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return tokens


register_native(NativeFamily(prompt=canary_prompt), "canary")
