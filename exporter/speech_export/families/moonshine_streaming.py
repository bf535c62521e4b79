"""Moonshine Streaming: an encoder of frames of 5 ms, each of whose layers attends within a window of its own.

The positions of the encoder's output are learnt, and the decoder adds them.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from speech_runtime.bundle.model_facts import EncoderFacts

from .forward_keywords import Keywords, forward_keywords
from .registry import DecoderFamily, EncoderFamily, NativeFamily, register_decoder, register_encoder, register_native


def streaming_facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of the encoder; its longest input has as many frames as the decoder has positions for."""
    embedder = encoder.embedder
    stride = embedder.frame_len * embedder.conv1.stride[0] * embedder.conv2.stride[0]
    return EncoderFacts(
        input_name="input_values",
        feature_size=None,
        heads=encoder.config.num_attention_heads,
        min_length=embedder.frame_len,
        max_length=encoder.config.max_position_embeddings * stride,
        stride=stride,
    )


def whole_frames(encoder: PreTrainedModel, inputs: Tensor) -> Tensor:
    """Pad samples [batch, samples] to a multiple of a frame, as transformers' processor pads them."""
    samples, width = inputs.shape[1], encoder.embedder.frame_len
    return nn.functional.pad(inputs, (0, (samples + width - 1) // width * width - samples))


def streaming_mask(encoder: PreTrainedModel, frames: int, attention_mask: Tensor) -> Tensor:
    """Return which frames hold audio, bool [batch, frames], as the encoder itself returns it.

    A convolution looks back, so in a padded batch some frames behind a clip hear its end. The last samples of a clip
    that do not fill a frame of 5 ms do not count.
    """
    embedder = encoder.embedder
    lengths: Tensor = attention_mask.sum(-1) // embedder.frame_len
    for convolution in (embedder.conv1, embedder.conv2):
        lengths = (lengths - 1 + convolution.left_pad) // convolution.stride[0] + 1
    return torch.arange(frames) < lengths.unsqueeze(1)


def positions_of_frames(encoder: PreTrainedModel, decoder: PreTrainedModel) -> None:
    """Note in the encoder's configuration for how many of its frames the decoder has positions."""
    encoder.config.max_position_embeddings = decoder.pos_emb.num_embeddings


def copied_frames(decoder: PreTrainedModel) -> AbstractContextManager[None]:
    """Within this context, the decoder adds positions to a copy of `encoder_hidden_states`, and not to the caller's."""

    def copy(keywords: Keywords) -> Keywords:
        return {**keywords, "encoder_hidden_states": keywords["encoder_hidden_states"].clone()}

    return forward_keywords(decoder, copy)


register_encoder(
    EncoderFamily(facts=streaming_facts, frame_mask=streaming_mask, arrange=whole_frames, in_composites=False),
    "moonshine_streaming_encoder",
)
register_decoder(DecoderFamily(adapt=copied_frames), "moonshine_streaming")
register_native(NativeFamily(join=positions_of_frames), "moonshine_streaming")
