"""What makes an encoder fast on ONNX Runtime's CPU kernels, and says the same in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from transformers import PreTrainedModel

from . import fused_attention
from .adapter import channels_last_adapter
from .attention_implementation import attention_implementation
from .conv_encoder import channels_last_extractor
from .positional_convolution import positional_convolution
from .replacement import replaced


@contextmanager
def fast_on_cpu(encoder: PreTrainedModel, in_bytes: bool = False) -> Iterator[None]:
    """Within this context `encoder` is traced into operations that ONNX Runtime is fast at; some only it knows.

    Enter it inside of `traceable`, with `in_bytes` for a graph that will be quantised. Families, and parts of them,
    that no rewrite knows stay as they are.
    """
    positions = partial(positional_convolution, in_bytes=in_bytes)
    with (
        attention_implementation(encoder, fused_attention.IMPLEMENTATION),
        replaced(encoder, channels_last_extractor, channels_last_adapter, positions),
    ):
        yield
