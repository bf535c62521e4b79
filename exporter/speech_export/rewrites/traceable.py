"""Make a Hugging Face model traceable as it is: our attention, and a frame mask without indexed assignment.

Everything here is active inside one context manager and undone after it; nothing is patched process-wide.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from transformers import PreTrainedModel, SpeechEncoderDecoderModel

from .. import attention
from ..masks import frame_mask


@contextmanager
def traceable(model: SpeechEncoderDecoderModel) -> Iterator[None]:
    """Within this context `model` can be traced; afterwards it is as it was."""
    with _attention_implementation(model), _frame_mask_of(model.encoder), torch.no_grad():
        yield


@contextmanager
def _attention_implementation(model: SpeechEncoderDecoderModel) -> Iterator[None]:
    before = model.encoder.config._attn_implementation, model.decoder.config._attn_implementation
    model.encoder.set_attn_implementation(attention.IMPLEMENTATION)
    model.decoder.set_attn_implementation(attention.IMPLEMENTATION)
    try:
        yield
    finally:
        model.encoder.set_attn_implementation(before[0])
        model.decoder.set_attn_implementation(before[1])


@contextmanager
def _frame_mask_of(encoder: PreTrainedModel) -> Iterator[None]:
    encoder._get_feature_vector_attention_mask = partial(frame_mask, encoder)
    try:
        yield
    finally:
        del encoder._get_feature_vector_attention_mask
