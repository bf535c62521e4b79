"""Cohere ASR, which must be told the language, and whose prompt says what else the text shall have."""

import logging
from typing import Any

from transformers import GenerationConfig, PretrainedConfig
from transformers.models.cohere_asr.processing_cohere_asr import LANGUAGES

from speech_runtime.bundle.model_facts import PromptTemplate

from .prompt_tokens import after_start, language_tokens, vocabulary_of
from .registry import NativeFamily, register_native

logger = logging.getLogger(__name__)

_BEFORE = ("▁", "<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>")
_AFTER = ("<|pnc|>", "<|noitn|>", "<|notimestamp|>", "<|nodiarize|>")


def cohere_prompt(
    settings: GenerationConfig, _: PretrainedConfig, tokenizer: Any | None, source: str
) -> PromptTemplate | None:
    """Return the prompt with punctuation; None, with a warning, if the vocabulary lacks a token of it.

    It is that of transformers' `CohereAsrProcessor.get_decoder_prompt_ids`.
    """
    vocabulary = vocabulary_of(tokenizer)
    languages = language_tokens(vocabulary, LANGUAGES)
    if not languages or not vocabulary.keys() >= {*_BEFORE, *_AFTER}:
        logger.warning(
            "The vocabulary of %s lacks tokens of its prompt: give the prompt in each call, as decoder_input_ids.",
            source,
        )
        return None
    before = after_start([vocabulary[token] for token in _BEFORE], settings)
    tokens = (*before, "language", "language", *(vocabulary[token] for token in _AFTER))
    return PromptTemplate(tokens=tokens, by_default=None, languages=languages, tasks={})


register_native(NativeFamily(prompt=cohere_prompt), "cohere_asr")
