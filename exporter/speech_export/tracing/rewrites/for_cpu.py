"""Rewrite an encoder for ONNX Runtime's CPU kernels; its float32 output stays the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from transformers import PreTrainedModel

from ..attention import attention_implementation
from . import fused_attention
from .adapter import channels_last_adapter
from .conv_encoder import channels_last_extractor
from .positional_convolution import positional_convolution
from .replacement import replaced


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
