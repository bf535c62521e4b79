"""Attention of traced models: plain operations, and small masks that survive tracing, half precision and TensorRT.

The masks of transformers' own functions are [batch, 1, frames, frames] and gathered element by element; here they are
[batch, 1, 1, frames].
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import bidirectional_mask_function, sdpa_mask

from ..errors import ExportError

IMPLEMENTATION = "speech_export"

_HARMLESS_KEYWORDS = frozenset(
    {
        "cache_position",
        "encoder_hidden_states",
        "is_causal",
        "output_attentions",
        "output_hidden_states",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)


def attention(
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
    """Scaled dot-product attention with the signature of transformers' attention interface.

    Args:
        module: Attention layer, named in errors.
        query: Queries [batch, heads, tokens, head_dim].
        key: Keys [batch, heads, keys, head_dim].
        value: Values, of the shape of `key`.
        attention_mask: Float that is added to the scores, or bool; broadcasts to [batch, heads, tokens, keys].
        scaling: Factor of the scores; 1 / √head_dim if None.
        dropout: Ignored: nothing is trained here.
        position_bias: Float [batch, heads, tokens, keys] that is added to the scores too.
        keywords: Other keywords of the layer.

    Returns:
        Attention output [batch, tokens, heads, head_dim], and no attention weights.

    Raises:
        ExportError: The layer passes an unknown keyword, which may change the scores.
    """
    check_keywords(module, keywords)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    attention_mask = as_added(attention_mask)
    if position_bias is not None:
        attention_mask = position_bias if attention_mask is None else attention_mask + position_bias
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    if attention_mask is not None:
        scores = scores + attention_mask
    return torch.matmul(torch.softmax(scores, dim=-1), value).transpose(1, 2), None


def check_keywords(module: nn.Module, keywords: Mapping[str, object]) -> None:
    """Check the keywords that a layer passes to its attention function, besides those that the function names.

    Raises:
        ExportError: The layer, `module`, passes an unknown keyword, which may change the scores.
    """
    unknown = sorted(name for name, given in keywords.items() if given is not None and name not in _HARMLESS_KEYWORDS)
    if unknown:
        raise ExportError(
            f"the attention of {type(module).__name__} is given {', '.join(unknown)}, which may change its scores; "
            "this family cannot be exported yet"
        )


def attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    **_: object,
) -> Tensor | None:
    """Return the mask of an encoder's self-attention; the signature is that of transformers' mask interface.

    Decoders never ask for one: they get theirs ready-made.

    Args:
        batch_size: Number of rows.
        q_length: Number of queries.
        kv_length: Number of keys.
        mask_function: Rule of transformers for the keys that a query may see, apart from padding.
        attention_mask: Mask bool [batch, keys], true where there is audio.

    Returns:
        Mask that is added to the scores, float32 [batch, 1, 1, keys]; [batch, 1, queries, keys] if the rule, such as
        a window, hides some keys of a query.
    """
    padding = None if attention_mask is None else attention_mask[:, :kv_length]
    if mask_function is bidirectional_mask_function:
        return None if padding is None else additive_mask(padding)
    seen = sdpa_mask(batch_size, q_length, kv_length, mask_function=mask_function, allow_is_causal_skip=False)
    return as_added(seen if padding is None else seen & padding[:, None, None].to(torch.bool))


def as_added(mask: Tensor | None) -> Tensor | None:
    """Return a mask that is added to the scores; one of bool, true where to attend, is converted."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.finfo(torch.float32).min)


def additive_mask(mask: Tensor, queries: int = 1) -> Tensor:
    """Turn a mask [batch, keys], 1 or true where to attend, into a mask that is added to the scores.

    Returns:
        Mask float32 [batch, 1, queries, keys]: some decoders require a row for each query.
    """
    added = torch.where(mask.to(torch.bool), 0.0, torch.finfo(torch.float32).min)
    return added[:, None, None, :].expand(-1, -1, queries, -1)


def causal_mask(rows: int, tokens: int, past: int) -> Tensor:
    """Return a mask that is added to the scores and hides later tokens: float32 [rows, 1, tokens, past + tokens]."""
    keys, queries = torch.arange(past + tokens), torch.arange(past, past + tokens)
    added = torch.where(keys <= queries.unsqueeze(1), 0.0, torch.finfo(torch.float32).min)
    return added[None, None].expand(rows, -1, -1, -1)


def frame_mask(
    encoder: PreTrainedModel, frames: int, attention_mask: Tensor, add_adapter: bool | None = None
) -> Tensor:
    """Downsample a sample mask int64 [batch, samples] to the encoder's frames, bool [batch, frames].

    The result is that of transformers' `_get_feature_vector_attention_mask`, without its indexed assignment.
    """
    options = {} if add_adapter is None else {"add_adapter": add_adapter}  # only families with adapters take it
    lengths: Tensor = encoder._get_feat_extract_output_lengths(attention_mask.sum(-1), **options)
    return torch.arange(frames) < lengths.unsqueeze(1)


def calls_interface(model: PreTrainedModel) -> bool:
    """Return true if the layers of `model` call the registered function, so that `attention_implementation` has effect.

    Older families have an attention of their own, some of which want a mask with a row for each query.
    """
    return bool(model._can_set_attn_implementation())


@contextmanager
def attention_implementation(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Within this context, `model` calls the attention function that is registered as `name`, if it can be replaced.

    `set_attn_implementation` sets the configuration of the model. A composite gives its encoder a new one, and the
    layers of most speech encoders keep the one that they were built with.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    name = model.config._attn_implementation
    kept: list[tuple[Any, str]] = []
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if type(config) is type(model.config) and config._attn_implementation != name:
            kept.append((config, config._attn_implementation))
            config._attn_implementation = name
    try:
        yield
    finally:
        for config, implementation in kept:
            config._attn_implementation = implementation
        model.set_attn_implementation(before)


AttentionInterface.register(IMPLEMENTATION, attention)
AttentionMaskInterface.register(IMPLEMENTATION, attention_mask)
