"""Generation settings of a checkpoint: written into the bundle, and disabled while an export is verified."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import GenerationConfig as TorchConfig
from transformers import PreTrainedModel

from speech_runtime import GenerationConfig, GenerationError
from speech_runtime.bundle.model_facts import DecoderFacts

from ..errors import ExportError

logger = logging.getLogger(__name__)

_TOKENS = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
_DEFAULTS = TorchConfig()
_LENGTHS = ("max_length", "max_new_tokens")
_WITHOUT_POSITIONS = 1024
"""Maximal length for a decoder that has no limit of its own."""
_FOR_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")


def write_settings(config: TorchConfig, decoder: DecoderFacts, path: Path, max_length: int | None = None) -> bool:
    """Write a `generation_config.json` that means to the runtime what `config` means to transformers.

    Settings that transformers does not know either are left out with a warning; so are sampling settings that the
    runtime refuses, if sampling is off. If no length is set, texts may be as long as the decoder allows; transformers
    cuts them after 20 tokens.

    Args:
        config: Settings of the checkpoint.
        decoder: Facts of the decoder.
        path: File to write.
        max_length: Maximal length of a sequence in tokens, which replaces the lengths in `config`.

    Returns:
        True if no length is set, and texts may be longer than those of transformers.

    Raises:
        ExportError: `max_length` does not fit the decoder.
    """
    _check_max_length(max_length, decoder)
    settings = {name: value for name, value in config.to_diff_dict().items() if value is not None}
    ignored = {name: value for name, value in settings.items() if _is_ignored(name, value, settings)}
    if ignored:
        listed = ", ".join(f"{name} ({value!r})" for name, value in sorted(ignored.items()))
        logger.warning("The runtime does not follow these settings of generation_config.json, left out: %s", listed)
    kept = {name: value for name, value in settings.items() if name not in ignored}
    without_length = max_length is None and not any(name in kept for name in _LENGTHS)
    if max_length is not None or without_length:
        kept.pop("max_new_tokens", None)
        kept["max_length"] = max_length or decoder.longest or _WITHOUT_POSITIONS
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return without_length


def _check_max_length(max_length: int | None, decoder: DecoderFacts) -> None:
    if max_length is None:
        return
    if max_length < 2:
        raise ExportError(f"max_length is {max_length}; give 2 tokens or more (--max-length): the start token counts")
    if decoder.longest is not None and max_length > decoder.longest:
        raise ExportError(
            f"max_length is {max_length}, and the decoder has {decoder.longest} positions; give {decoder.longest} or "
            "less (--max-length)"
        )


def _is_ignored(name: str, value: Any, settings: dict[str, Any]) -> bool:
    if name not in vars(_DEFAULTS):
        return True
    if name not in _FOR_SAMPLING or settings.get("do_sample"):
        return False
    try:
        GenerationConfig().updated({name: value})
    except GenerationError:
        return True
    return False


@contextmanager
def plain_search(model: PreTrainedModel) -> Iterator[None]:
    """Within this context, let a torch model search with only its start, end and padding tokens, as `only_tokens` does.

    Other stored settings, such as sampling, forced tokens or a time limit, do not concern the graphs. They must be
    removed because transformers takes any setting that a call does not give from `model.generation_config`.
    """
    stored = model.generation_config
    tokens = {name: getattr(stored, name, None) for name in _TOKENS}
    model.generation_config = TorchConfig(**{name: None if token == -1 else token for name, token in tokens.items()})
    try:
        yield
    finally:
        model.generation_config = stored


def only_tokens(config: GenerationConfig) -> GenerationConfig:
    """Return the runtime's settings with the start, end and padding tokens of `config`, and defaults for all others."""
    return GenerationConfig(**{name: getattr(config, name) for name in _TOKENS})
