"""Moonshine, whose encoder takes waveforms that are not normalised."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from transformers import PreTrainedModel

from speech_runtime.bundle.model_facts import EncoderFacts

from .registry import EncoderFamily, register_encoder

_CONVOLUTIONS = ((127, 64), (7, 3), (3, 2))
"""Width and stride of each convolution; they are constants in transformers, too."""


def moonshine_facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of a Moonshine encoder."""
    shortest, stride = 1, 1
    for width, step in reversed(_CONVOLUTIONS):
        shortest, stride = (shortest - 1) * step + width, stride * step
    return EncoderFacts(
        input_name="input_values",
        feature_size=None,
        heads=encoder.config.encoder_num_attention_heads,
        min_length=shortest,
        max_length=None,
        stride=stride,
    )


def moonshine_mask(encoder: PreTrainedModel, frames: int, attention_mask: Tensor) -> Tensor:
    """Return the mask of the first sample of each frame: bool [batch, frames]."""
    stride = moonshine_facts(encoder).stride
    return attention_mask[:, ::stride][:, :frames].bool()


@contextmanager
def whole_lengths(encoder: PreTrainedModel) -> Iterator[None]:
    """Within this context, the encoder counts its frames in integers: transformers' fractions cannot be traced."""

    def frames(samples: int) -> int:
        for width, step in _CONVOLUTIONS:
            samples = (samples - width) // step + 1
        return samples

    encoder._get_feat_extract_output_lengths = frames
    try:
        yield
    finally:
        del encoder._get_feat_extract_output_lengths


register_encoder(
    EncoderFamily(facts=moonshine_facts, rewrite=whole_lengths, frame_mask=moonshine_mask, in_composites=False),
    "moonshine",
)
