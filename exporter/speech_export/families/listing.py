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

_AUDIO_INPUTS = ("input_values", "input_features")
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
    attending = {
        model_type
        for model_type, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
        if _ENCODER_INPUTS & inspect.signature(getattr(transformers, name).forward).parameters.keys()
    }
    encoders, other_audio = set(encoder_types()), set[str]()
    for model_type, names in MODEL_MAPPING_NAMES.items():
        model = getattr(transformers, names if isinstance(names, str) else names[0], None)
        try:
            takes_audio = getattr(model, "main_input_name", "") in _AUDIO_INPUTS
        except ImportError:  # the model needs a library that is not installed
            continue
        if takes_audio and model_type not in encoders:
            (encoders if hasattr(model, "_get_feature_vector_attention_mask") else other_audio).add(model_type)
    reasons = refusals()
    return Families(
        tuple(sorted(encoders)),
        tuple(sorted(attending - reasons.keys())),
        tuple(sorted(_speech_models() - reasons.keys())),
        {name: reasons[name] for name in sorted(reasons)},
        tuple(sorted(other_audio)),
    )


def _speech_models() -> set[str]:
    """Return the model types of transformers' own speech seq2seq models; others register theirs beside them."""
    known = {name for name, kind in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES.items() if hasattr(transformers, kind)}
    return known - {"speech-encoder-decoder"}
