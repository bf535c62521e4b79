"""The tokens that a bundle keeps: those of the files, and those that no text does without."""

import logging
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from speech_runtime.bundle.vocabulary import Vocabulary
from speech_runtime.generation.language import language_tokens
from speech_runtime.paths import expanded

from ..errors import ExportError, shortened
from ..sources.composite import Composite
from .files import kept_by_file

logger = logging.getLogger(__name__)

_TOKEN_SETTINGS = ("_token_id", "_token_ids")
"""Endings of the names of settings that hold token ids."""
_FEWEST = 2
"""Number of tokens without which there is nothing to choose from."""


def kept_vocabulary(
    composite: Composite, files: Sequence[str | Path], tokenizer: Tokenizer | None, vocab_size: int
) -> Vocabulary:
    """Return the vocabulary of a model with the tokens of `files`, and those that always stay.

    Args:
        composite: Model.
        files: Files of tokens, see `files`; without any, all tokens are kept.
        tokenizer: Tokenizer of the bundle; None if it has none.
        vocab_size: Number of token ids of the model.

    Raises:
        ExportError: A file cannot be used; or all tokens would be left out but one.
    """
    if not files:
        return Vocabulary(vocab_size)
    kept = {*_tokens_of_settings(composite)}
    if tokenizer is not None:
        names = composite.tokenizer.get_vocab()  # type: ignore[union-attr]  # the bundle's is made of it
        kept |= _special_tokens(composite.tokenizer) | short_tokens(names, tokenizer)
        kept |= {*language_tokens(tokenizer).values()}
    kept = {token for token in kept if 0 <= token < vocab_size}
    for file in files:
        kept |= kept_by_file(Path(expanded(file)), composite.tokenizer, vocab_size)
    if len(kept) < _FEWEST:
        raise ExportError(f"--vocabulary keeps {len(kept)} of {vocab_size:,} tokens; name more in its files")
    if len(kept) == vocab_size:
        logger.warning("The files of --vocabulary name all %d tokens of the model: none is left out.", vocab_size)
        return Vocabulary(vocab_size)
    return Vocabulary.keeping(vocab_size, kept)


def short_tokens(names: Mapping[str, int], tokenizer: Tokenizer) -> set[int]:
    """Return the tokens that any word can be spelt with: single characters and bytes, digits and punctuation.

    Args:
        names: Token ids by name, as the vocabulary has them. Some names stand for bytes.
        tokenizer: Tokenizer that decodes them. Some change the text, such as to upper case.
    """
    texts: list[str] = tokenizer.decode_batch([[token] for token in names.values()], skip_special_tokens=False)
    pairs = zip(names.items(), texts, strict=True)
    return {token for (name, token), text in pairs if _is_short(_plain(name)) or _is_short(_plain(text))}


def _plain(text: str) -> str:
    """Return the text of a token without the marks of a part of a word."""
    stripped = text.strip().strip("▁").strip()
    return stripped.removeprefix("##").removesuffix("@@") or stripped


def _is_short(text: str) -> bool:
    categories = [unicodedata.category(character)[0] for character in text]
    characters = sum(category != "M" for category in categories)  # accents belong to the character before them
    return characters <= 1 or all(category in "NPS" for category in categories)


def _tokens_of_settings(composite: Composite) -> Iterator[int]:
    """Yield the ids that any setting or the prompt has: start, end, padding, forced tokens, languages and tasks.

    They are read as ids: a token that generation uses may have no text, or that of another one.
    """
    for settings in (composite.model.generation_config, composite.config, composite.model.decoder.config):
        yield from _token_ids(settings.to_dict())
    if composite.prompt is not None:
        yield from composite.prompt.token_ids


def _token_ids(settings: Mapping[Any, Any]) -> Iterator[int]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _token_ids(value)
        elif str(name).endswith(_TOKEN_SETTINGS):
            given = value if isinstance(value, list | tuple) else [value]
            yield from (token for token in given if type(token) is int)


def _special_tokens(tokenizer: Any) -> set[int]:
    """Return the special and added tokens; a warning names those that the vocabulary has under another id."""
    vocabulary, used = (
        tokenizer.get_vocab(),
        dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)),
    )
    others = {token: vocabulary[token] for token, number in used.items() if vocabulary.get(token, number) != number}
    if others:
        named = shortened([f"{token!r} ({used[token]}, there {number})" for token, number in others.items()])
        logger.warning("The tokenizer's vocabulary has other ids than it uses, and both are kept: %s.", named)
    return {*used.values(), *others.values(), *tokenizer.added_tokens_decoder}
