"""Where a composite model comes from: one fine-tuned checkpoint, or an encoder and a decoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    SpeechEncoderDecoderModel,
)

from speech_runtime.bundle import MANIFEST

from .errors import ExportError

_MODEL_TYPE = "speech-encoder-decoder"
_FOR_TRAINING_ONLY = "masked_spec_embed"
"""What masked frames are replaced with in training; many checkpoints lack it."""

_SPEECH_INPUTS = ("input_values", "input_features")


@dataclass(frozen=True)
class Composite:
    """A model with what goes with it. `random_weights` names the tensors that no checkpoint had."""

    model: SpeechEncoderDecoderModel
    feature_extractor: Any | None
    tokenizer: Any | None
    source: str
    random_weights: tuple[str, ...] = ()


def load_checkpoint(name: str, processor: str | None = None) -> Composite:
    """Load a fine-tuned composite checkpoint.

    Args:
        name: directory or Hub id.
        processor: directory or Hub id of the feature extractor and tokenizer; `name` itself where it is None.

    Raises:
        ExportError: nothing there, not a composite, or weights, tokenizer or extractor are missing.
    """
    if (Path(name) / MANIFEST).exists():
        raise ExportError(f"{name} is a bundle already; give the checkpoint that it was exported from")
    config = _load(AutoConfig, name, "a configuration")
    if config.model_type != _MODEL_TYPE:
        raise ExportError(
            f"{name} is a {config.model_type} model ({_architecture(config)}), not a {_MODEL_TYPE}; to join it with "
            "another one, give --encoder and --decoder"
        )
    model, missing = _load_weights(SpeechEncoderDecoderModel, name, config)
    if missing:
        raise ExportError(
            f"{name} lacks {len(missing)} of the model's weights: {_shortened(missing)}; "
            "save it again with save_pretrained"
        )
    parts = processor or name
    return Composite(model, _load_extractor(parts), _load_tokenizer(parts), name)


def load_pair(encoder: str, decoder: str, seed: int = 0) -> Composite:
    """Join two checkpoints, as `SpeechEncoderDecoderModel.from_encoder_decoder_pretrained` does.

    Args:
        encoder: directory or Hub id of a speech encoder, its feature extractor with it.
        decoder: directory or Hub id of a text model, its tokenizer with it. It is made a decoder with
            cross-attention; weights that its checkpoint does not have are random.
        seed: for the random weights.

    Raises:
        ExportError: nothing there, no speech encoder, or no decoder with cross-attention.
    """
    encoder_config = _load(AutoConfig, encoder, "a configuration")
    decoder_config = _load(AutoConfig, decoder, "a configuration")
    if _MODEL_TYPE in (encoder_config.model_type, decoder_config.model_type):
        raise ExportError("--encoder and --decoder take one half each; give a composite checkpoint as MODEL")
    decoder_config.is_decoder = True
    decoder_config.add_cross_attention = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder_model, missing = _load_weights(AutoModel, encoder, encoder_config)
        _check_encoder(encoder_model, encoder)
        decoder_model, random_weights = _load_weights(AutoModelForCausalLM, decoder, decoder_config)
        model = SpeechEncoderDecoderModel(encoder=encoder_model, decoder=decoder_model).eval()
    random_weights = [*missing, *(f"decoder.{name}" for name in random_weights)]
    random_weights += [name for name, _ in model.named_parameters() if name.startswith("enc_to_dec_proj")]
    tokenizer = _load_tokenizer(decoder)
    model.generation_config = _generation_config_of_pair(decoder_model, tokenizer)
    return Composite(model, _load_extractor(encoder), tokenizer, f"{encoder} + {decoder}", tuple(random_weights))


def _load(factory: Any, name: str, what: str, **options: Any) -> Any:
    try:
        return factory.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        place = "from this directory" if Path(name).is_dir() else "from the Hub, and there is no such directory"
        raise ExportError(f"{name}: {what} could not be loaded {place}: {reason}") from error


def _load_weights(factory: Any, name: str, config: PretrainedConfig) -> tuple[Any, list[str]]:
    model, info = _load(factory, name, "weights", config=config, dtype=torch.float32, output_loading_info=True)
    return model.eval(), sorted(key for key in info["missing_keys"] if not key.endswith(_FOR_TRAINING_ONLY))


def _load_extractor(name: str) -> Any:
    return _load(AutoFeatureExtractor, name, "a feature extractor (preprocessor_config.json)")


def _load_tokenizer(name: str) -> Any:
    return _load(AutoTokenizer, name, "a tokenizer (tokenizer.json)")


def _check_encoder(model: PreTrainedModel, name: str) -> None:
    if model.main_input_name not in _SPEECH_INPUTS:
        raise ExportError(
            f"{name} is a {model.config.model_type} model that takes {model.main_input_name}; a speech encoder takes "
            f"{' or '.join(_SPEECH_INPUTS)}"
        )


def _generation_config_of_pair(decoder: PreTrainedModel, tokenizer: Any) -> GenerationConfig:
    """Start, end and padding tokens for a decoder that was not a sequence-to-sequence model before."""
    known = decoder.generation_config

    def first(*tokens: int | None) -> int | None:
        return next((token for token in tokens if token is not None), None)

    eos = first(known.eos_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id)
    return GenerationConfig(
        decoder_start_token_id=first(
            known.decoder_start_token_id, known.bos_token_id, tokenizer.bos_token_id, tokenizer.cls_token_id
        ),
        eos_token_id=eos,
        pad_token_id=first(known.pad_token_id, tokenizer.pad_token_id, eos),
    )


def _architecture(config: PretrainedConfig) -> str:
    return ", ".join(config.architectures or [type(config).__name__])


def _shortened(names: list[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
