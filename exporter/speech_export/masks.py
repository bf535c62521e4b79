"""Attention masks and frame counts in arithmetic that survives tracing, half precision and TensorRT."""

import torch
from torch import Tensor
from transformers import PreTrainedModel


def additive_mask(mask: Tensor) -> Tensor:
    """Turn a mask [batch, keys], 1 or true where to attend, into what is added to the scores [batch, 1, 1, keys]."""
    return torch.where(mask.to(torch.bool), 0.0, torch.finfo(torch.float32).min)[:, None, None, :]


def causal_mask(tokens: int, past: int) -> Tensor:
    """What is added to the scores so that no token sees a later one: float32 [1, 1, tokens, past + tokens]."""
    keys, queries = torch.arange(past + tokens), torch.arange(past, past + tokens)
    return torch.where(keys <= queries.unsqueeze(1), 0.0, torch.finfo(torch.float32).min)[None, None]


def frame_mask(
    encoder: PreTrainedModel, frames: int, attention_mask: Tensor, add_adapter: bool | None = None
) -> Tensor:
    """Downsample a sample mask int64 [batch, samples] to the encoder's frames, bool [batch, frames].

    Says what `_get_feature_vector_attention_mask` of transformers says, without its indexed assignment.
    """
    lengths: Tensor = encoder._get_feat_extract_output_lengths(attention_mask.sum(-1), add_adapter)
    return torch.arange(frames) < lengths.unsqueeze(1)
