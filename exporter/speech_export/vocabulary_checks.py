"""Token ids of settings and tokenizer against the vocabulary of the decoder."""

import logging
from typing import Any

from speech_runtime import GenerationConfig

from .errors import ExportError, shortened

logger = logging.getLogger(__name__)

_SINGLE = ("decoder_start_token_id", "pad_token_id", "forced_bos_token_id", "eos_token_id", "forced_eos_token_id")


def check_token_ids(config: GenerationConfig, vocab_size: int) -> None:
    """Check that the tokens which a search starts, ends, pads or forces are words of the model.

    Raises:
        ExportError: one is negative, or not below `vocab_size`; names setting and value.
    """
    names = _SINGLE if config.decoder_start_token_id is not None else ("bos_token_id", *_SINGLE)
    given = {name: getattr(config, name) for name in names}
    wrong = [
        f"{name} is {token}"
        for name, tokens in given.items()
        for token in (tokens if isinstance(tokens, tuple) else (tokens,))
        if token is not None and not 0 <= token < vocab_size
    ]
    if wrong:
        raise ExportError(
            f"generation_config.json: {', '.join(wrong)}; the model has {vocab_size:,} words, numbered from 0: set a "
            "word of the model, or null for none"
        )


def check_tokenizer(tokenizer: Any, vocab_size: int) -> None:
    """Check that the words of a tokenizer are words of the model.

    A warning names special tokens that the model has not: whoever adds a padding token seldom widens the model for it.

    Raises:
        ExportError: ordinary words lie beyond the model's vocabulary, so that the tokenizer is another model's.
    """
    beyond = {token: name for name, token in tokenizer.get_vocab().items() if token >= vocab_size}
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    words = [f"{beyond[token]!r} ({token})" for token in sorted(beyond) if token not in special]
    if words:
        raise ExportError(
            f"the tokenizer has {len(words):,} words beyond the {vocab_size:,} of the model: {shortened(words)}; it is "
            "another model's: say where the right one is (--processor), or do without (--without tokenizer)"
        )
    if beyond:
        said = shortened([f"{beyond[token]!r} ({token})" for token in sorted(beyond)])
        logger.warning("The tokenizer has special tokens that the model has not, which it can never say: %s", said)
