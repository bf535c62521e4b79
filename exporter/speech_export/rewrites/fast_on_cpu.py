"""What makes an encoder fast on ONNX Runtime's CPU kernels, and says the same in float32."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from . import fused_attention
from .adapter import channels_last_adapter
from .attention_implementation import attention_implementation
from .feature_extractor import channels_last_extractor
from .positional_convolution import fourier_positions
from .replacement import replaced


@contextmanager
def fast_on_cpu(encoder: PreTrainedModel) -> Iterator[None]:
    """Within this context `encoder` is traced into operations that ONNX Runtime is fast at; some only it knows.

    Enter it inside of `traceable`. Families, and parts of them, that no rewrite knows stay as they are.
    """
    with (
        attention_implementation(encoder, fused_attention.IMPLEMENTATION),
        replaced(encoder, channels_last_extractor, channels_last_adapter, fourier_positions),
    ):
        yield
