"""The attention of WavLM, which calls torch's own function, as one operator."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..attention import additive_mask
from .onnx_attention import onnx_attention

_METHOD = "torch_multi_head_self_attention"


@contextmanager
def wavlm_attention(encoder: PreTrainedModel) -> Iterator[None]:
    """Within this context, WavLM layers of `encoder` call `onnx_attention`; other encoders are left alone."""
    layers = [module for module in encoder.modules() if hasattr(module, _METHOD)]
    for layer in layers:
        setattr(layer, _METHOD, partial(_attend, layer))
    try:
        yield
    finally:
        for layer in layers:
            delattr(layer, _METHOD)


def _attend(
    layer: Any, hidden_states: Tensor, attention_mask: Tensor | None, gated_position_bias: Tensor
) -> tuple[Tensor, None]:
    """Follow `WavLMAttention.torch_multi_head_self_attention`, without the weights that it returns.

    Args:
        layer: The WavLM layer.
        hidden_states: Input [batch, frames, width].
        attention_mask: Mask [batch, frames], 1 or true where there is audio.
        gated_position_bias: Float [batch · heads, frames, frames] that is added to the scores.

    Returns:
        Output [batch, frames, width], and no attention weights.
    """
    batch, heads = hidden_states.shape[0], layer.num_heads
    query, key, value = (
        project(hidden_states).unflatten(2, (heads, -1)).transpose(1, 2)
        for project in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    mask = None if attention_mask is None else additive_mask(attention_mask)
    bias = gated_position_bias.view(batch, heads, *gated_position_bias.shape[1:])
    attended, _ = onnx_attention(layer, query, key, value, mask, position_bias=bias)
    return layer.out_proj(attended.flatten(2)), None
