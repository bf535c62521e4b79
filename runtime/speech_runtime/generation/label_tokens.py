"""Tokens that `forward` needs for labels: from config.json, not from generation_config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..bundle.loading import Bundle, read_configuration
from ..bundle.manifest import CONFIG
from ..errors import BundleError, GenerationError
from .config import GenerationConfig

_NAMES = ("decoder_start_token_id", "pad_token_id")


def wrong_label_tokens(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokens for labels in a model's configuration that are not token ids, by their names."""
    return {name: token for name in _NAMES if (token := config.get(name)) is not None and type(token) is not int}


@dataclass(frozen=True)
class LabelTokens:
    """Arguments of transformers' `shift_tokens_right`: tokens of the model's configuration.

    Training reads config.json, generation reads generation_config.json, and the two may differ.

    Attributes:
        start: Token before the first label; that of the generation settings if None.
        pad: Token that replaces labels of -100 as input; that of the generation settings if None.
    """

    start: int | None = None
    pad: int | None = None

    @classmethod
    def of(cls, bundle: Bundle) -> "LabelTokens":
        """Read the tokens from a bundle's config.json; both are None if there is no such file.

        Raises:
            BundleError: The file cannot be read, or one of them is not a token id.
        """
        if not bundle.has(CONFIG):
            return cls()
        path = bundle.path(CONFIG)
        found = read_configuration(path)
        for name, token in wrong_label_tokens(found).items():
            raise BundleError(f"{path}: {name} is {token!r}, it must be a token id; export the model again")
        return cls(*map(found.get, _NAMES))

    def resolved(self, config: GenerationConfig, batch: int, vocab_size: int) -> tuple[tuple[int, ...], int]:
        """Return the start token of each utterance, and the token for labels of -100.

        Raises:
            GenerationError: There is no start token, or one of the two is outside the vocabulary.
        """
        start = config.start_token_ids(batch) if self.start is None else (self.start,) * batch
        pad = max(config.fill_token_id, 0) if self.pad is None else self.pad
        if outside := sorted({token for token in (*start, pad) if not 0 <= token < vocab_size}):
            raise GenerationError(
                f"labels start from and are padded with tokens of {CONFIG}, but {outside[0]} is not in the decoder's "
                f"0 … {vocab_size - 1}; correct decoder_start_token_id and pad_token_id in the checkpoint's {CONFIG} "
                "and export it again, or give decoder_input_ids"
            )
        return start, pad
