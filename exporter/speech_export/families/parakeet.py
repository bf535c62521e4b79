"""Parakeet's encoder, of log-mel features, as it is in Canary and in Cohere ASR."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from speech_runtime.bundle.model_facts import EncoderFacts

from .registry import EncoderFamily, register_encoder


def parakeet_facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of a Parakeet encoder."""
    config = encoder.config
    return EncoderFacts(
        input_name="input_features",
        feature_size=config.num_mel_bins,
        heads=config.num_attention_heads,
        min_length=1,
        max_length=None,
        stride=config.subsampling_factor,
    )


def parakeet_mask(encoder: PreTrainedModel, frames: int, attention_mask: Tensor) -> Tensor:
    """Return which frames hold audio, bool [batch, frames], as the encoder itself returns it."""
    lengths: Tensor = encoder._get_subsampling_output_length(attention_mask.sum(-1))
    return torch.arange(frames) < lengths.unsqueeze(1)


register_encoder(EncoderFamily(facts=parakeet_facts, frame_mask=parakeet_mask, in_composites=False), "parakeet_encoder")
