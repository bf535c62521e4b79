"""Audio Spectrogram Transformer: a picture of fixed size, never masked."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from speech_runtime.bundle.model_facts import EncoderFacts

from .registry import EncoderFamily, register_encoder


def facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of an AST encoder; a column of patches has several frames."""
    config = encoder.config
    return EncoderFacts(
        input_name="input_values",
        feature_size=config.num_mel_bins,
        heads=config.num_attention_heads,
        min_length=config.max_length,
        max_length=config.max_length,
        stride=1,
    )


def every_frame(_: PreTrainedModel, frames: int, attention_mask: Tensor) -> Tensor:
    """Return a mask of all patches and the two tokens before them: transformers' composite attends to all of them."""
    return torch.ones(attention_mask.shape[0], frames, dtype=torch.bool)


register_encoder(EncoderFamily(facts=facts, frame_mask=every_frame, takes_mask=False), "audio-spectrogram-transformer")
