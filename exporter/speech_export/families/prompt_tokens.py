"""Tokens of prompts that several families have, of the form `<|en|>`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from transformers import GenerationConfig

Place = int | Literal["language", "source_language", "task"]
"""Token id, or the name of what a call puts in its place."""


def vocabulary_of(tokenizer: Any | None) -> Mapping[str, int]:
    """Return the token ids of a tokenizer by their tokens; empty without one."""
    return tokenizer.get_vocab() if tokenizer is not None else {}


def language_tokens(vocabulary: Mapping[str, int], codes: Iterable[str]) -> dict[str, int]:
    """Return the token id of each language that the vocabulary has, by its code."""
    return {code: vocabulary[f"<|{code}|>"] for code in sorted(codes) if f"<|{code}|>" in vocabulary}


def after_start(tokens: Sequence[Place], settings: GenerationConfig) -> tuple[Place, ...]:
    """Return a prompt without the start token, which every sequence has anyway."""
    return tuple(tokens[1:] if tokens[0] == settings.decoder_start_token_id else tokens)
