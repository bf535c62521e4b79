"""Encoders of log-mel features: Audio Spectrogram Transformer, Speech2Text and Wav2Vec2-BERT."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from speech_runtime.bundle.model_facts import EncoderFacts

from .registry import EncoderFamily, register_encoder


def spectrogram_facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of an Audio Spectrogram Transformer, whose input has a fixed length."""
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
    """Return a mask of all frames: transformers' decoder attends to all of them, padding too."""
    return torch.ones(attention_mask.shape[0], frames, dtype=torch.bool)


def speech_to_text_facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of a Speech2Text encoder; its subsampling convolutions have a stride of 2 each."""
    config = encoder.config
    stride = 2**config.num_conv_layers
    return EncoderFacts(
        input_name="input_features",
        feature_size=config.input_feat_per_channel * config.input_channels,
        heads=config.encoder_attention_heads,
        min_length=1,
        max_length=config.max_source_positions * stride,
        stride=stride,
    )


def wav2vec2_bert_facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of a Wav2Vec2-BERT encoder; the configuration limits its table of relative positions."""
    config = encoder.config
    return EncoderFacts(
        input_name="input_features",
        feature_size=config.feature_projection_input_dim,
        heads=config.num_attention_heads,
        min_length=1,
        max_length=config.max_source_positions if config.position_embeddings_type == "relative" else None,
        stride=1,
    )


register_encoder(
    EncoderFamily(facts=spectrogram_facts, frame_mask=every_frame, takes_mask=False), "audio-spectrogram-transformer"
)
register_encoder(EncoderFamily(facts=speech_to_text_facts), "speech_to_text")
register_encoder(EncoderFamily(facts=wav2vec2_bert_facts), "wav2vec2-bert")
