"""Start, end and padding token of a model: as given, as its files store them, or as its tokenizer names them."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

from transformers import GenerationConfig

logger = logging.getLogger(__name__)


class TokenIds(TypedDict, total=False):
    """Token ids that replace those of the model's files; None leaves one as it is.

    `decoder_start_token_id` begins every sequence, `eos_token_id` ends it, `pad_token_id` fills a batch after the end.
    """

    decoder_start_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None


FLAGS = {name: f"--{name.replace('_', '-')}" for name in TokenIds.__annotations__}
"""Flags of the command line by name of the setting."""

_KINDS = {
    "decoder_start_token_id": ("decoder_start", "bos", "cls"),
    "eos_token_id": ("eos", "sep"),
    "pad_token_id": ("pad",),
}
"""Kinds of tokens that can serve, best first; BERT's tokenizer has `cls` and `sep` in place of `bos` and `eos`."""


def complete_special_tokens(
    config: GenerationConfig, name: str, given: TokenIds, stored: Sequence[Any], tokenizer: Any | None
) -> None:
    """Set the start, end and padding token of `config`; a warning names those that no file stores.

    Args:
        config: Generation settings to change.
        name: Name of the model, for the warning.
        given: Token ids that come first.
        stored: Configurations that may store token ids, best first.
        tokenizer: Tokenizer of the decoder. Its `cls` and `sep` tokens serve if there are no others, as in
            transformers' documentation of `SpeechEncoderDecoderModel`.
    """
    assumed = []
    for setting, kinds in _KINDS.items():
        known = given.get(setting)
        if known is None:
            known = next(_ids(stored, kinds), None)
        if known is None and tokenizer is not None and (known := next(_ids((tokenizer,), kinds), None)) is not None:
            assumed.append(f"{setting} {known} (the tokenizer's {tokenizer.convert_ids_to_tokens(known)})")
        setattr(config, setting, known)
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    if config.decoder_start_token_id is None and end is not None:
        config.decoder_start_token_id = end
        assumed.append(f"decoder_start_token_id {end} (the end token)")
    if config.pad_token_id is None:
        config.pad_token_id = end
    if assumed:
        logger.warning(
            "%s does not set all special tokens; these are assumed: %s. %s and %s change them.",
            name,
            ", ".join(assumed),
            ", ".join(list(FLAGS.values())[:-1]),
            list(FLAGS.values())[-1],
        )


def start_token(config: GenerationConfig) -> Any:
    """Return the id of the token that a text begins with; None if `config` has none."""
    return config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id


def override_special_tokens(config: GenerationConfig, given: TokenIds) -> None:
    """Set the token ids of `config` that are given."""
    for setting, token in given.items():
        if token is not None:
            setattr(config, setting, token)


def _ids(owners: Sequence[Any], kinds: Sequence[str]) -> Iterator[int | list[int]]:
    for owner in owners:
        for kind in kinds:
            token = getattr(owner, f"{kind}_token_id", None)
            if type(token) is int or (kind == "eos" and isinstance(token, list)):
                yield token
