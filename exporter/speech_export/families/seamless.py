"""SeamlessM4T and its second version: their encoder of log-mel features, and the language in front of the text."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel

from speech_runtime.bundle.model_facts import EncoderFacts, PromptTemplate

from .registry import EncoderFamily, NativeFamily, register_encoder, register_native

_LANGUAGES = "text_decoder_lang_to_code_id"
_SETTINGS = (_LANGUAGES, "t2u_lang_code_to_id", "vocoder_lang_code_to_id", "id_to_text", "char_to_id")
"""Generation settings of the text decoder's languages, and of the halves that make speech."""


def seamless_facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of a speech encoder of Seamless; with an adapter it has fewer frames at its end."""
    config = encoder.config
    return EncoderFacts(
        input_name="input_features",
        feature_size=config.feature_projection_input_dim,
        heads=config.speech_encoder_attention_heads,
        min_length=1,
        max_length=None,
        stride=1,
    )


def seamless_mask(encoder: PreTrainedModel, frames: int, attention_mask: Tensor) -> Tensor:
    """Return which frames hold audio, bool [batch, frames], as the whole model computes it for its decoder."""
    lengths: Tensor = encoder._compute_sub_sample_lengths_from_attention_mask(attention_mask)
    return torch.arange(frames) < lengths.unsqueeze(1)


def seamless_prompt(settings: GenerationConfig, _: PretrainedConfig, __: Any | None, ___: str) -> PromptTemplate | None:
    """Return the prompt: the token of the language to write in, if a call asks for one."""
    languages = getattr(settings, _LANGUAGES, None)
    if not languages:
        return None
    named = {**{f"__{code}__": token for code, token in languages.items()}, **languages}
    return PromptTemplate(tokens=("language",), by_default=(), languages=named, tasks={})


register_encoder(
    EncoderFamily(facts=seamless_facts, frame_mask=seamless_mask, in_composites=False),
    "seamless_m4t",
    "seamless_m4t_v2",
)
register_native(NativeFamily(prompt=seamless_prompt, settings=_SETTINGS), "seamless_m4t", "seamless_m4t_v2")
