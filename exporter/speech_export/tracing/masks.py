"""Attention masks and frame counts in arithmetic that survives tracing, half precision and TensorRT."""

import torch
from torch import Tensor
from transformers import PreTrainedModel


def additive_mask(mask: Tensor, queries: int = 1) -> Tensor:
    """Turn a mask [batch, keys], 1 or true where to attend, into what is added to the scores.

    Returns:
        float32 [batch, 1, queries, keys]: some decoders insist on a row for each query.
    """
    added = torch.where(mask.to(torch.bool), 0.0, torch.finfo(torch.float32).min)
    return added[:, None, None, :].expand(-1, -1, queries, -1)


def causal_mask(rows: int, tokens: int, past: int) -> Tensor:
    """What is added to the scores so that no token sees a later one: float32 [rows, 1, tokens, past + tokens]."""
    keys, queries = torch.arange(past + tokens), torch.arange(past, past + tokens)
    added = torch.where(keys <= queries.unsqueeze(1), 0.0, torch.finfo(torch.float32).min)
    return added[None, None].expand(rows, -1, -1, -1)


def frame_mask(
    encoder: PreTrainedModel, frames: int, attention_mask: Tensor, add_adapter: bool | None = None
) -> Tensor:
    """Downsample a sample mask int64 [batch, samples] to the encoder's frames, bool [batch, frames].

    Says what `_get_feature_vector_attention_mask` of transformers says, without its indexed assignment.
    """
    options = {} if add_adapter is None else {"add_adapter": add_adapter}  # only families with adapters know it
    lengths: Tensor = encoder._get_feat_extract_output_lengths(attention_mask.sum(-1), **options)
    return torch.arange(frames) < lengths.unsqueeze(1)
