"""Make a Hugging Face model traceable: our attention, our frame mask, and the rewrites of its families.

Everything is active inside one context manager and undone after it; nothing is patched process-wide.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from transformers import PreTrainedModel, SpeechEncoderDecoderModel

from ...families import decoder_family, encoder_family
from .. import attention
from ..attention import attention_implementation, frame_mask


@contextmanager
def rewritten_for_tracing(model: SpeechEncoderDecoderModel) -> Iterator[None]:
    """Within this context, `model` can be traced; afterwards it is unchanged."""
    encoder, decoder = encoder_family(model.encoder), decoder_family(model.decoder)
    with (
        attention_implementation(model.encoder, attention.IMPLEMENTATION),
        attention_implementation(model.decoder, attention.IMPLEMENTATION),
        _frame_mask_of(model.encoder),
        encoder.rewrite(model.encoder),
        decoder.adapt(model.decoder),
        decoder.rewrite(model.decoder),
        torch.no_grad(),
    ):
        yield


@contextmanager
def _frame_mask_of(encoder: PreTrainedModel) -> Iterator[None]:
    encoder._get_feature_vector_attention_mask = partial(frame_mask, encoder)
    try:
        yield
    finally:
        del encoder._get_feature_vector_attention_mask
