"""Join an encoder and a decoder, each a checkpoint of its own."""

import copy
from collections.abc import Collection
from typing import Unpack

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    SpeechEncoderDecoderModel,
)

from speech_runtime.paths import expanded

from ..errors import ExportError
from ..families import check_not_refused
from ..families.listing import AUDIO_INPUTS
from .adapter_merging import merge_adapter
from .adapters import open_adapter, refuse_adapter
from .checkpoint import COMPOSITE
from .composite import Composite, source_name
from .hub import DEFAULT_HUB, HubOptions, check_source, load_config, load_parts
from .language_adapters import choose_language
from .special_tokens import TokenIds, complete_special_tokens
from .weights import load_part


def load_pair(
    encoder: str,
    decoder: str,
    seed: int = 0,
    hub: HubOptions = DEFAULT_HUB,
    without: Collection[str] = (),
    processor: str | None = None,
    adapter: str | None = None,
    target_lang: str | None = None,
    **token_ids: Unpack[TokenIds],
) -> Composite:
    """Join two checkpoints, as `SpeechEncoderDecoderModel.from_encoder_decoder_pretrained` does.

    Args:
        encoder: Directory or Hub id of a speech encoder with its feature extractor.
        decoder: Directory or Hub id of a text model with its tokenizer. It becomes a decoder with cross-attention;
            weights that its checkpoint does not have are random.
        seed: Seed of the random weights.
        hub: Options for the Hub.
        without: `feature-extractor` or `tokenizer`, for a bundle without it; it may be missing then.
        processor: Directory or Hub id of both the feature extractor and the tokenizer; by default the feature
            extractor is beside the encoder, the tokenizer beside the decoder.
        adapter: Directory or Hub id of an adapter of peft, such as LoRA, to merge into the model or one half of it.
        target_lang: Language of the encoder's adapter layers, for a checkpoint with one for each language (MMS).
        token_ids: `decoder_start_token_id`, `eos_token_id` and `pad_token_id`. By default those of the decoder's
            files, else of its tokenizer: for BERT the tokens [CLS], [SEP] and [PAD].

    Raises:
        ExportError: There is no such checkpoint, or one is not a speech encoder, or cannot be its decoder, or an
            adapter does not fit.
    """
    encoder, decoder = expanded(encoder), expanded(decoder)
    processor, adapter = expanded(processor), expanded(adapter)
    for half in (encoder, decoder):
        check_source(half, hub)
        refuse_adapter(half, hub)
    given_adapter = open_adapter(adapter, hub) if adapter is not None else None
    encoder_config, decoder_config = load_config(encoder, hub), load_config(decoder, hub)
    if COMPOSITE in (encoder_config.model_type, decoder_config.model_type):
        raise ExportError("--encoder and --decoder take one half each; give a composite checkpoint as MODEL")
    check_decoder(decoder_config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder_model, missing = load_part(AutoModel, encoder, encoder_config, encoder_config, hub)
        if encoder_config.is_encoder_decoder:
            encoder_model = encoder_model.get_encoder()
        _check_encoder(encoder_model, encoder)
        chosen = choose_language(encoder_model, encoder, target_lang, hub)
        extractor, tokenizer = load_parts(processor or encoder, processor or decoder, hub, without)
        decoder_model, random_weights = load_part(
            AutoModelForCausalLM, decoder, as_decoder(decoder_config), decoder_config, hub
        )
        model = SpeechEncoderDecoderModel(encoder=encoder_model, decoder=decoder_model).eval()
    random_weights = [
        *(f"encoder.{name}" for name in missing if name not in chosen),
        *(f"decoder.{name}" for name in random_weights),
    ]
    random_weights += [name for name, _ in model.named_parameters() if name.startswith("enc_to_dec_proj")]
    if given_adapter is not None:
        random_weights = merge_adapter(model, given_adapter, (encoder, decoder), random_weights)
    model.generation_config = GenerationConfig()
    complete_special_tokens(model.generation_config, decoder, token_ids, (decoder_model.generation_config,), tokenizer)
    source = source_name(f"{encoder} + {decoder}", adapter, target_lang)
    return Composite(model, extractor, tokenizer, source, tuple(random_weights))


def check_decoder(config: PretrainedConfig) -> None:
    """Check that a text decoder can be made of `config`.

    Raises:
        ExportError: Its family has none, or cannot be exported.
    """
    check_not_refused(config)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ExportError(
            f"{config.model_type} cannot be a decoder: transformers has no language model of that type; "
            "speech-export --list-families names those that can"
        )


def as_decoder(config: PretrainedConfig) -> PretrainedConfig:
    """Return a copy of a configuration, for a decoder with cross-attention."""
    decoder = copy.deepcopy(config)
    decoder.is_decoder = True
    decoder.add_cross_attention = True
    return decoder


def _check_encoder(model: PreTrainedModel, name: str) -> None:
    if model.main_input_name not in AUDIO_INPUTS:
        raise ExportError(
            f"{name} is a {model.config.model_type} model that takes {model.main_input_name}; a speech encoder takes "
            f"{' or '.join(AUDIO_INPUTS)}"
        )
