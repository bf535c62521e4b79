"""The attention of traced models: plain operations and small masks.

The masks of transformers' own functions are [batch, 1, frames, frames] and gathered element by element; here they are
[batch, 1, 1, frames].
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import bidirectional_mask_function

from ..errors import ExportError
from .masks import additive_mask

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
        module: the attention layer that calls; named in errors.
        query: [batch, heads, tokens, head_dim].
        key: [batch, heads, keys, head_dim].
        value: like `key`.
        attention_mask: float, added to the scores; broadcasts to [batch, heads, tokens, keys].
        scaling: factor of the scores; 1 / √head_dim where not given.
        dropout: ignored: nothing is trained here.
        position_bias: float [batch, heads, tokens, keys], added to the scores too.
        keywords: whatever else the layer passes on.

    Returns:
        [batch, tokens, heads, head_dim], and no attention weights.

    Raises:
        ExportError: the layer passes a keyword that may change the scores, which this function does not know.
    """
    unknown = sorted(name for name, given in keywords.items() if given is not None and name not in _HARMLESS_KEYWORDS)
    if unknown:
        raise ExportError(
            f"the attention of {type(module).__name__} is given {', '.join(unknown)}, which may change its scores; "
            "this family cannot be exported yet"
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if position_bias is not None:
        attention_mask = position_bias if attention_mask is None else attention_mask + position_bias
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    if attention_mask is not None:
        scores = scores + attention_mask
    return torch.matmul(torch.softmax(scores, dim=-1), value).transpose(1, 2), None


def attention_mask(
    kv_length: int, mask_function: object, attention_mask: Tensor | None = None, **_: object
) -> Tensor | None:
    """The mask of an encoder's self-attention, with the signature of transformers' mask interface.

    Decoders never ask for one: they are given theirs ready-made.

    Args:
        kv_length: keys.
        mask_function: which key a query may see, padding aside: all of them.
        attention_mask: bool [batch, keys], true where there is audio.

    Returns:
        What is added to the scores, float32 [batch, 1, 1, keys].

    Raises:
        ExportError: attention that is not bidirectional.
    """
    if mask_function is not bidirectional_mask_function:
        raise ExportError("an encoder whose attention is not plainly bidirectional cannot be exported yet")
    return None if attention_mask is None else additive_mask(attention_mask[:, :kv_length])


AttentionInterface.register(IMPLEMENTATION, attention)
AttentionMaskInterface.register(IMPLEMENTATION, attention_mask)
