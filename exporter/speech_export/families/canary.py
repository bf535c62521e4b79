"""Canary, whose prompt is the chat template of its checkpoint, with the language of the speech and that of the text."""

import logging
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
    """Return the prompt for speech and text in the same language; None, with a warning, if it is not known.

    It is that of transformers' `CanaryProcessor.apply_transcription_request`, with punctuation.
    """
    languages = language_tokens(vocabulary_of(tokenizer), LANGUAGE_CODE_TO_NAME)
    if _DEFAULT not in languages or getattr(tokenizer, "chat_template", None) is None:
        logger.warning(
            "%s has no chat template, or no languages in its vocabulary: its prompt is not known. Give it in each "
            "call, as decoder_input_ids.",
            source,
        )
        return None
    rendered = _rendered(tokenizer, _DEFAULT)
    tokens: list[Place] = ["language" if token == languages[_DEFAULT] else token for token in rendered]
    named = {LANGUAGE_CODE_TO_NAME[code].lower(): token for code, token in languages.items()}
    return PromptTemplate(
        tokens=after_start(tokens, settings),
        by_default=None,
        languages={**named, **languages},
        tasks={},
        language=_DEFAULT,
    )


def _rendered(tokenizer: Any, language: str) -> list[int]:
    request = {"type": "text", "source_language": language, "target_language": language, "punctuation": True}
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": [request]}], tokenize=False, add_generation_prompt=True
    )
    tokens: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return tokens


register_native(NativeFamily(prompt=canary_prompt), "canary")
