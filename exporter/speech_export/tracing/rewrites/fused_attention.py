"""Self-attention of encoders as `com.microsoft::MultiHeadAttention`, a kernel of ONNX Runtime."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from ..attention import attention, attention_mask

IMPLEMENTATION = "speech_export_fused"


def fused_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """Compute attention as one operation if its kernel supports it, else by `tracing.attention.attention`.

    Arguments and results are those of that function. The kernel takes a mask of keys, but neither a bias nor a mask
    that differs between queries or heads.
    """
    rows = attention_mask is None or attention_mask.shape[1:3] == (1, 1)
    if position_bias is not None or not rows or keywords.get("encoder_hidden_states") is not None:
        return attention(
            module, query, key, value, attention_mask, scaling=scaling, position_bias=position_bias, **keywords
        )
    batch, heads, tokens, head_dim = query.shape
    flat = [state.transpose(1, 2).flatten(2) for state in (query, key, value)]
    padding = None if attention_mask is None else (attention_mask[:, 0, 0] == 0).to(torch.int32)
    attended = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (*flat, None, padding),
        {
            "num_heads": heads,
            "scale": head_dim**-0.5 if scaling is None else scaling,
            "mask_filter_value": torch.finfo(torch.float32).min,
        },
        dtype=query.dtype,
        shape=(batch, tokens, heads * head_dim),
        version=1,
    )
    return attended.unflatten(2, (heads, head_dim)), None


AttentionInterface.register(IMPLEMENTATION, fused_attention)
AttentionMaskInterface.register(IMPLEMENTATION, attention_mask)
