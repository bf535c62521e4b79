"""Join two configurations with random weights, to measure latency before anything is trained."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import torch
from transformers import (
    AutoConfig,
    GenerationConfig,
    PretrainedConfig,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
)

from speech_runtime.bundle.safe_files import is_directory, parse_json, read_json, unreadable
from speech_runtime.paths import expanded

from ..errors import ExportError, reason
from .composite import Composite
from .hub import DEFAULT_HUB, HubOptions, check_source, load_config
from .pair import as_decoder, check_decoder
from .special_tokens import FLAGS, TokenIds, complete_special_tokens

logger = logging.getLogger(__name__)

_REMEDY = "give a config.json of one model, a directory or Hub id with one, or a JSON object with model_type"


def load_configs(
    encoder: str, decoder: str, seed: int = 0, hub: HubOptions = DEFAULT_HUB, **token_ids: Unpack[TokenIds]
) -> Composite:
    """Join two configurations, as `SpeechEncoderDecoderConfig.from_encoder_decoder_configs` does.

    Args:
        encoder: A `config.json`, a directory or Hub id with one, or a JSON object with `model_type` and the settings
            that differ from the defaults of that type.
        decoder: The same; it becomes a decoder with cross-attention.
        seed: Seed of the weights, all of which are random.
        hub: Options for the Hub.
        token_ids: `decoder_start_token_id`, `eos_token_id` and `pad_token_id`. By default those of the decoder's
            configuration; if it has no start token, 0, since no token has a meaning to random weights.

    Returns:
        A composite without feature extractor and tokenizer: it takes model input, and returns token ids.

    Raises:
        ExportError: There is no such configuration, or no model can be made of it.
    """
    encoder_config, decoder_config = read_config(encoder, hub), as_decoder(read_config(decoder, hub))
    check_decoder(decoder_config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder_config, decoder_config)
            model = SpeechEncoderDecoderModel(config).eval()
        except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
            kinds = f"{encoder_config.model_type} and {decoder_config.model_type}"
            raise ExportError(f"no composite can be made of {kinds}: {reason(error)}") from error
    source = f"{encoder_config.model_type} + {decoder_config.model_type}, random weights, seed {seed}"
    settings = model.generation_config = GenerationConfig()
    complete_special_tokens(settings, source, token_ids, (model.decoder.generation_config,), None)
    if settings.decoder_start_token_id is None:
        settings.decoder_start_token_id = 0
        logger.warning(
            "The decoder's configuration has no start token; it is set to 0. %s changes it.",
            FLAGS["decoder_start_token_id"],
        )
    return Composite(model, None, None, source, tuple(name for name, _ in model.named_parameters()))


def read_config(given: str, hub: HubOptions = DEFAULT_HUB) -> PretrainedConfig:
    """Read a configuration: a file, a directory, a Hub id, or a JSON object over a model type's defaults.

    Raises:
        ExportError: It cannot be read; the error names it.
    """
    if given.lstrip().startswith("{"):
        return _of_json(lambda: parse_json(given), f"the configuration {given[:80]}")
    given = expanded(given)
    if os.path.lexists(given) and not is_directory(given):
        return _of_json(lambda: read_json(Path(given)), given)
    check_source(given, hub)
    return load_config(given, hub)


def _of_json(read: Callable[[], Any], name: str) -> PretrainedConfig:
    try:
        fields = read()
    except (OSError, ValueError) as error:
        raise ExportError(f"{name} cannot be read: {unreadable(error)}; {_REMEDY}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("model_type"), str):
        raise ExportError(f"{name} is not a configuration of transformers: it has no model_type; {_REMEDY}")
    try:
        return AutoConfig.for_model(**fields)
    except Exception as error:  # configurations check themselves, and raise anything
        raise ExportError(f"{name} is not a configuration of transformers: {reason(error)}; {_REMEDY}") from error
