"""An encoder and a decoder, each a checkpoint of its own, joined."""

import copy
from collections.abc import Collection
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    SpeechEncoderDecoderModel,
)

from ..errors import ExportError
from ..families import check_not_refused
from .adapters import refuse_adapters
from .checkpoint import COMPOSITE
from .composite import Composite
from .hub import ANONYMOUS, HubOptions, check_directory, load_config, load_extractor, load_tokenizer
from .weights import load_part

_SPEECH_INPUTS = ("input_values", "input_features")


def load_pair(
    encoder: str, decoder: str, seed: int = 0, hub: HubOptions = ANONYMOUS, without: Collection[str] = ()
) -> Composite:
    """Join two checkpoints, as `SpeechEncoderDecoderModel.from_encoder_decoder_pretrained` does.

    Args:
        encoder: directory or Hub id of a speech encoder, its feature extractor with it.
        decoder: directory or Hub id of a text model, its tokenizer with it. It is made a decoder with
            cross-attention; weights that its checkpoint does not have are random.
        seed: for the random weights.
        hub: how to reach the Hub.
        without: `feature-extractor` or `tokenizer`, where the bundle is to do without; both may be missing then.

    Raises:
        ExportError: nothing there, no speech encoder, or no decoder with cross-attention.
    """
    for half in (encoder, decoder):
        check_directory(half)
        refuse_adapters(half, hub)
    encoder_config, decoder_config = load_config(encoder, hub), load_config(decoder, hub)
    if COMPOSITE in (encoder_config.model_type, decoder_config.model_type):
        raise ExportError("--encoder and --decoder take one half each; give a composite checkpoint as MODEL")
    check_not_refused(decoder_config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder_model, missing = load_part(AutoModel, encoder, encoder_config, encoder_config, hub)
        if encoder_config.is_encoder_decoder:
            encoder_model = encoder_model.get_encoder()
        _check_encoder(encoder_model, encoder)
        decoder_model, random_weights = load_part(
            AutoModelForCausalLM, decoder, as_decoder(decoder_config), decoder_config, hub
        )
        model = SpeechEncoderDecoderModel(encoder=encoder_model, decoder=decoder_model).eval()
    random_weights = [*missing, *(f"decoder.{name}" for name in random_weights)]
    random_weights += [name for name, _ in model.named_parameters() if name.startswith("enc_to_dec_proj")]
    tokenizer = load_tokenizer(decoder, hub, without)
    model.generation_config = generation_config(decoder_model, tokenizer)
    return Composite(
        model, load_extractor(encoder, hub, without), tokenizer, f"{encoder} + {decoder}", tuple(random_weights)
    )


def as_decoder(config: PretrainedConfig) -> PretrainedConfig:
    """The same configuration, of a decoder with cross-attention."""
    decoder = copy.deepcopy(config)
    decoder.is_decoder = True
    decoder.add_cross_attention = True
    return decoder


def generation_config(decoder: PreTrainedModel, tokenizer: Any | None = None) -> GenerationConfig:
    """Start, end and padding tokens for a decoder that was not a sequence-to-sequence model before."""
    known = decoder.generation_config

    def first(*tokens: int | None) -> int | None:
        return next((token for token in tokens if token is not None), None)

    def of_tokenizer(name: str) -> int | None:
        return getattr(tokenizer, f"{name}_token_id", None)

    eos = first(known.eos_token_id, of_tokenizer("eos"), of_tokenizer("sep"))
    bos = first(known.bos_token_id, of_tokenizer("bos"), of_tokenizer("cls"))
    return GenerationConfig(
        decoder_start_token_id=first(known.decoder_start_token_id, bos, eos),
        eos_token_id=eos,
        pad_token_id=first(known.pad_token_id, of_tokenizer("pad"), eos),
    )


def _check_encoder(model: PreTrainedModel, name: str) -> None:
    if model.main_input_name not in _SPEECH_INPUTS:
        raise ExportError(
            f"{name} is a {model.config.model_type} model that takes {model.main_input_name}; a speech encoder takes "
            f"{' or '.join(_SPEECH_INPUTS)}"
        )
