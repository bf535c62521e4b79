"""Decoders with an attention of their own, as the function that all others call.

Their layers are older than transformers' attention interface: copies of BART's first attention, and of BERT's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache

from ..attention import calls_interface, check_keywords
from ..tree_cache import split_heads

KeyValue = tuple[Tensor, Tensor]
Attend = Callable[..., tuple[Tensor, None]]
"""Function of transformers' attention interface, such as `tracing.attention.attention`."""

_LIKE_BART = frozenset({"MvpAttention", "TrOCRAttention", "XGLMAttention"})
_LIKE_BERT = frozenset({"RemBertSelfAttention", "RoFormerSelfAttention"})


def is_one_operator(decoder: PreTrainedModel) -> bool:
    """Return true if the attention of `decoder` can be `onnx_attention`, whose masks may have one row for all queries.

    Other decoders may want a row for each query.
    """
    return calls_interface(decoder) or any(_forward(module) is not None for module in decoder.modules())


@contextmanager
def own_attention(decoder: PreTrainedModel, attend: Attend) -> Iterator[None]:
    """Within this context, layers of `decoder` with an attention of their own call `attend`, if theirs is known."""
    layers: list[Any] = []
    for module in decoder.modules():
        forward = _forward(module)
        if forward is not None:
            module.forward = partial(forward, module, attend)
            layers.append(module)
    try:
        yield
    finally:
        for module in layers:
            del module.forward


def _forward(module: nn.Module) -> Callable[..., tuple[Tensor, None]] | None:
    name = type(module).__name__
    return _attend_like_bart if name in _LIKE_BART else _attend_like_bert if name in _LIKE_BERT else None


def _attend_like_bart(
    layer: Any,
    attend: Attend,
    hidden_states: Tensor,
    key_value_states: Tensor | None = None,
    past_key_values: EncoderDecoderCache | None = None,
    attention_mask: Tensor | None = None,
    **keywords: object,
) -> tuple[Tensor, None]:
    """Follow the `forward` of `_LIKE_BART`, without the weights that it returns."""
    check_keywords(layer, keywords)
    query = split_heads(layer.q_proj(hidden_states), layer.num_heads)

    def project(states: Tensor) -> KeyValue:
        return split_heads(layer.k_proj(states), layer.num_heads), split_heads(layer.v_proj(states), layer.num_heads)

    key, value = _cached(layer, past_key_values, key_value_states, lambda: project(hidden_states), project)
    attended, _ = attend(layer, query, key, value, attention_mask, layer.scaling)
    return layer.out_proj(attended.flatten(2)), None


def _attend_like_bert(
    layer: Any,
    attend: Attend,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    sinusoidal_pos: Tensor | None = None,
    encoder_hidden_states: Tensor | None = None,
    past_key_values: EncoderDecoderCache | None = None,
    **keywords: object,
) -> tuple[Tensor, None]:
    """Follow the `forward` of `_LIKE_BERT`, without the weights that it returns; RemBERT has no rotation."""
    check_keywords(layer, keywords)
    heads = layer.num_attention_heads
    query = split_heads(layer.query(hidden_states), heads)

    def project(states: Tensor) -> KeyValue:
        return split_heads(layer.key(states), heads), split_heads(layer.value(states), heads)

    def project_own() -> KeyValue:
        nonlocal query
        key, value = project(hidden_states)
        if sinusoidal_pos is None:
            return key, value
        if layer.rotary_value:
            query, key, value = layer.apply_rotary_position_embeddings(sinusoidal_pos, query, key, value)
        else:
            query, key = layer.apply_rotary_position_embeddings(sinusoidal_pos, query, key)
        return key, value

    key, value = _cached(layer, past_key_values, encoder_hidden_states, project_own, project)
    attended, _ = attend(layer, query, key, value, attention_mask)
    return attended.flatten(2), None


def _cached(
    layer: Any,
    cache: EncoderDecoderCache | None,
    encoder_states: Tensor | None,
    project_own: Callable[[], KeyValue],
    project: Callable[[Tensor], KeyValue],
) -> KeyValue:
    """Return all keys and values [batch, heads, tokens or frames, head_dim] of a layer, and keep them in `cache`.

    Args:
        layer: Attention, with its `layer_idx`.
        cache: Caches of the decoder; None for none.
        encoder_states: Encoder output, for cross-attention; None for self-attention.
        project_own: Function that returns the new keys and values of self-attention.
        project: Function that returns those of the encoder output.
    """
    if encoder_states is None:
        new = project_own()
        return new if cache is None else cache.self_attention_cache.update(*new, layer.layer_idx)
    if cache is None:
        return project(encoder_states)
    if not cache.is_updated.get(layer.layer_idx):
        cache.cross_attention_cache.update(*project(encoder_states), layer.layer_idx)
        cache.is_updated[layer.layer_idx] = True
    kept = cache.cross_attention_cache.layers[layer.layer_idx]
    return kept.keys, kept.values
