"""The words of a tokenizer against the vocabulary of the decoder."""

import logging
from typing import Any

from ..errors import ExportError, shortened

logger = logging.getLogger(__name__)


def check_tokenizer(tokenizer: Any, vocab_size: int) -> None:
    """Check that the words of a tokenizer are words of the model.

    A warning names special tokens that the model has not: whoever adds a padding token seldom widens the model for it.

    Args:
        tokenizer: any `PreTrainedTokenizerBase`.
        vocab_size: of the decoder.

    Raises:
        ExportError: it has no ordinary words, or some lie beyond the model's vocabulary: it is another model's.
    """
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    if special.issuperset(tokenizer.get_vocab().values()):
        raise ExportError(
            "the tokenizer has no words, only special tokens: its vocabulary file is missing; say where there is one "
            "(--processor), or do without (--without tokenizer)"
        )
    beyond = {token: f"{name!r} ({token})" for name, token in tokenizer.get_vocab().items() if token >= vocab_size}
    words = [beyond[token] for token in sorted(beyond) if token not in special]
    if words:
        raise ExportError(
            f"the tokenizer has {len(words):,} words beyond the {vocab_size:,} of the model: {shortened(words)}; it is "
            "another model's: say where the right one is (--processor), or do without (--without tokenizer)"
        )
    if beyond:
        said = shortened([beyond[token] for token in sorted(beyond)])
        logger.warning("The tokenizer has special tokens that the model has not, which it can never say: %s", said)
