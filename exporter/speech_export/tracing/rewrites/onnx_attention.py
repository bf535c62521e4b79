"""Attention as `ai.onnx::Attention`, which ONNX Runtime computes by one kernel on CUDA.

The kernel takes queries, keys and values as the projections return them. Padding behind each utterance is described by
its length, with which the fastest kernel (flash attention) skips it; with a mask, slower kernels are chosen.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from ..attention import as_added, attention_mask, check_keywords

IMPLEMENTATION = "speech_export_onnx"

OPSET = 24
"""The first opset whose Attention takes lengths."""


def onnx_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001 - part of the interface
    position_bias: Tensor | None = None,
    **keywords: object,
) -> tuple[Tensor, None]:
    """Compute attention by one operator; arguments, results and errors are those of `tracing.attention.attention`.

    A mask that is the same for all queries must hide nothing but the last keys of each row.
    """
    check_keywords(module, keywords)
    batch, heads, tokens, head_dim = query.shape
    attention_mask, lengths = as_added(attention_mask), None
    if attention_mask is not None and attention_mask.shape[1:3] == (1, 1):
        # At least 1: without any key there is nothing to average, and the result may be NaN.
        counted = (attention_mask[:, 0, 0] == 0).sum(-1)
        lengths, attention_mask = torch.maximum(counted, torch.ones((), dtype=torch.int64)), None
    given = [each for each in (attention_mask, position_bias) if each is not None]
    attended = torch.onnx.ops.symbolic(
        "Attention",
        (*map(_merged_heads, (query, key, value)), sum(given[1:], given[0]) if given else None, None, None, lengths),
        {
            "q_num_heads": heads,
            "kv_num_heads": key.shape[1],
            "scale": head_dim**-0.5 if scaling is None else scaling,
        },
        dtype=query.dtype,
        shape=(batch, tokens, heads * head_dim),
        version=OPSET,
    )
    return attended.unflatten(2, (heads, head_dim)), None


def _merged_heads(states: Tensor) -> Tensor:
    """Return states [batch, heads, tokens, head_dim] as [batch, tokens, heads · head_dim]."""
    return states.transpose(1, 2).flatten(2)


AttentionInterface.register(IMPLEMENTATION, onnx_attention)
AttentionMaskInterface.register(IMPLEMENTATION, attention_mask)
