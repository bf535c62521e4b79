"""Two configurations without weights: a composite to measure latency with, before anything is trained."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig, SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel

from speech_runtime.bundle.safe_files import is_directory, parse_json, read_json, unreadable

from ..errors import ExportError, reason
from ..families import check_not_refused
from .composite import Composite
from .hub import ANONYMOUS, HubOptions, load_config
from .pair import as_decoder, generation_config

_REMEDY = "give a config.json of one model, a directory or Hub id with one, or a JSON object with model_type"


def load_configs(encoder: str, decoder: str, seed: int = 0, hub: HubOptions = ANONYMOUS) -> Composite:
    """Join two configurations, as `SpeechEncoderDecoderConfig.from_encoder_decoder_configs` does.

    Args:
        encoder: a `config.json`, a directory or Hub id with one, or a JSON object: `model_type`, and what differs from
            the defaults of that type.
        decoder: the same; it is made a decoder with cross-attention.
        seed: for the weights, all random.
        hub: how to reach the Hub.

    Returns:
        A composite without feature extractor and tokenizer: it takes model input, and yields token ids.

    Raises:
        ExportError: no such configuration, or no model can be made of it.
    """
    encoder_config, decoder_config = read_config(encoder, hub), as_decoder(read_config(decoder, hub))
    check_not_refused(decoder_config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder_config, decoder_config)
            model = SpeechEncoderDecoderModel(config).eval()
        except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
            kinds = f"{encoder_config.model_type} and {decoder_config.model_type}"
            raise ExportError(f"no composite can be made of {kinds}: {reason(error)}") from error
    model.generation_config = generation_config(model.decoder)
    source = f"{encoder_config.model_type} + {decoder_config.model_type}, random weights, seed {seed}"
    return Composite(model, None, None, source, tuple(name for name, _ in model.named_parameters()))


def read_config(given: str, hub: HubOptions = ANONYMOUS) -> PretrainedConfig:
    """Read a configuration: a file, a directory, a Hub id, or a JSON object over a model type's defaults.

    Raises:
        ExportError: it cannot be read; names it.
    """
    if given.lstrip().startswith("{"):
        return _of_json(lambda: parse_json(given), f"the configuration {given[:80]}")
    if os.path.lexists(given) and not is_directory(given):
        return _of_json(lambda: read_json(Path(given)), given)
    return load_config(given, hub)


def _of_json(read: Callable[[], Any], name: str) -> PretrainedConfig:
    try:
        fields = read()
    except (OSError, ValueError) as error:
        raise ExportError(f"{name} cannot be read: {unreadable(error)}; {_REMEDY}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("model_type"), str):
        raise ExportError(f"{name} is no configuration of transformers: it has no model_type; {_REMEDY}")
    try:
        return AutoConfig.for_model(**fields)
    except Exception as error:  # what a configuration checks of itself is its own affair
        raise ExportError(f"{name} is no configuration of transformers: {reason(error)}; {_REMEDY}") from error
