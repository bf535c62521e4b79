"""List the families of transformers that can be exported, and those that are refused."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import transformers
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from .registry import encoder_types, refusals

AUDIO_INPUTS = ("input_values", "input_features")
"""Names of the main input of audio models."""
_ENCODER_INPUTS = {"encoder_hidden_states", "encoder_outputs"}


@dataclass(frozen=True)
class Families:
    """Model types of the installed transformers.

    Attributes:
        encoders: Speech encoders that can be exported.
        decoders: Text decoders that can be exported: causal language models with cross-attention.
        natives: Speech models that are exported whole, with a decoder of their own.
        refused: Decoders and speech models that cannot, with the reason.
        other_audio: Audio models that cannot be the encoder of a `SpeechEncoderDecoderModel`, because they cannot
            downsample the attention mask of a padded batch.
    """

    encoders: tuple[str, ...]
    decoders: tuple[str, ...]
    natives: tuple[str, ...]
    refused: Mapping[str, str]
    other_audio: tuple[str, ...]


def supported_families() -> Families:
    """Inspect every model class of transformers; importing them all takes about ten seconds."""
    attending = {model_type for model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if attends_to_audio(model_type)}
    encoders = {*encoder_types(), *filter(is_speech_encoder, MODEL_MAPPING_NAMES)}
    other_audio = {name for name in MODEL_MAPPING_NAMES if main_input(name) in AUDIO_INPUTS} - encoders
    reasons = refusals()
    return Families(
        tuple(sorted(encoders)),
        tuple(sorted(attending - reasons.keys())),
        tuple(sorted(_speech_models() - reasons.keys())),
        {name: reasons[name] for name in sorted(reasons)},
        tuple(sorted(other_audio)),
    )


def attends_to_audio(model_type: str) -> bool:
    """Return whether transformers has a text decoder of that type that can attend to an encoder."""
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    if name is None:
        return False
    return bool(_ENCODER_INPUTS & inspect.signature(getattr(transformers, name).forward).parameters.keys())


def is_speech_encoder(model_type: str) -> bool:
    """Return whether a model of that type can be the encoder of a composite."""
    if model_type in encoder_types():
        return True
    return main_input(model_type) in AUDIO_INPUTS and hasattr(
        _model_class(model_type), "_get_feature_vector_attention_mask"
    )


def main_input(model_type: str) -> str | None:
    """Return the name of the main input of models of that type; None if it is not known."""
    try:
        return getattr(_model_class(model_type), "main_input_name", None)
    except ImportError:  # the model needs a library that is not installed
        return None


def _model_class(model_type: str) -> type | None:
    names = MODEL_MAPPING_NAMES.get(model_type)
    name = names if isinstance(names, str) or names is None else names[0]
    return None if name is None else getattr(transformers, name, None)


def _speech_models() -> set[str]:
    """Return the model types of transformers' own speech seq2seq models; others register theirs beside them."""
    known = {name for name, kind in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES.items() if hasattr(transformers, kind)}
    return known - {"speech-encoder-decoder"}
