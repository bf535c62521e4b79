"""Put the rewrites into effect while a model is traced: those that every target needs, and those of one target.

Everything is active inside a context manager and undone after it; nothing is patched process-wide.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from transformers import PreTrainedModel, SpeechEncoderDecoderModel

from speech_runtime.bundle.graph_io import Cache

from ...families import decoder_family, encoder_family
from ...precision.options import Target
from .. import attention
from ..attention import attention_implementation, frame_mask
from ..facts import FRAME_MASK
from . import fused_attention, onnx_attention
from .adapter import channels_last_adapter
from .conv_encoder import channels_last_extractor
from .own_attention import own_attention
from .positional_convolution import positional_convolution
from .replacement import replaced
from .single_operators import linear_layer, tanh_gelu
from .wavlm_attention import wavlm_attention


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
def rewritten_for_cpu(encoder: PreTrainedModel, quantized: bool = False) -> Iterator[None]:
    """Within this context, `encoder` is traced into operations that are fast in ONNX Runtime, some of them its own.

    Enter it inside `rewritten_for_tracing`. Modules that no rewrite recognises stay as they are.

    Args:
        encoder: Speech encoder, changed within the context.
        quantized: If true, choose operations that are fast in int8; the graph will be quantised.
    """
    positions = partial(positional_convolution, quantized=quantized)
    with (
        attention_implementation(encoder, fused_attention.IMPLEMENTATION),
        replaced(encoder, channels_last_extractor, channels_last_adapter, positions),
    ):
        yield


@contextmanager
def rewritten_for_cuda(model: SpeechEncoderDecoderModel, cache: Cache) -> Iterator[None]:
    """Within this context, attention is traced into one operator, which needs opset 24, and so are some modules.

    Enter it inside `rewritten_for_tracing`. A family with an attention of its own that is not known keeps its
    operations.

    Args:
        model: Composite, changed within the context.
        cache: Cache of the decoder. Only with "tree" are its keys and values stored as the operator takes them.
    """
    with (
        attention_implementation(model.encoder, onnx_attention.IMPLEMENTATION),
        wavlm_attention(model.encoder),
        _decoder_for_cuda(model.decoder) if cache == "tree" else nullcontext(),
        replaced(model.decoder, linear_layer, tanh_gelu),
    ):
        yield


@contextmanager
def _decoder_for_cuda(decoder: PreTrainedModel) -> Iterator[None]:
    with (
        attention_implementation(decoder, onnx_attention.IMPLEMENTATION),
        own_attention(decoder, onnx_attention.onnx_attention),
    ):
        yield


@contextmanager
def _model_for_cpu(model: SpeechEncoderDecoderModel, quantized: bool) -> Iterator[None]:
    with rewritten_for_cpu(model.encoder, quantized), own_attention(model.decoder, attention.attention):
        yield


def rewritten_for(
    target: Target, model: SpeechEncoderDecoderModel, cache: Cache = "growing", quantized: bool = False
) -> AbstractContextManager[None]:
    """Return the context in which `model` is traced for a target; see `rewritten_for_cpu` and `rewritten_for_cuda`."""
    if target == "cpu":
        return _model_for_cpu(model, quantized)
    return rewritten_for_cuda(model, cache) if target == "cuda" else nullcontext()


@contextmanager
def _frame_mask_of(encoder: PreTrainedModel) -> Iterator[None]:
    if FRAME_MASK in vars(encoder):  # that of the family, which can be traced as it is
        yield
        return
    setattr(encoder, FRAME_MASK, partial(frame_mask, encoder))
    try:
        yield
    finally:
        delattr(encoder, FRAME_MASK)
