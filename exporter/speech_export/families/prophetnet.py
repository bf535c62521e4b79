"""ProphetNet, decoded one token at a time by the cached path of transformers.

A search in transformers uses that path. The uncached one gives different numbers, by 0.15 to 0.35.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import MethodType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.prophetnet import modeling_prophetnet

from ..errors import ExportError
from .forward_keywords import Keywords, forward_keywords
from .registry import DecoderFamily, register_decoder


def float_mask(decoder: PreTrainedModel) -> AbstractContextManager[None]:
    """Within this context, the decoder accepts a boolean mask of the encoder, although it computes `1.0 - mask`."""

    def convert(keywords: Keywords) -> Keywords:
        mask = keywords.get("encoder_attention_mask")
        return keywords if mask is None else {**keywords, "encoder_attention_mask": mask.float()}

    return forward_keywords(decoder, convert)


@contextmanager
def one_token(decoder: PreTrainedModel) -> Iterator[None]:
    """Within this context, every step takes the cached path.

    The mask is left out, since one token attends to all before it. Positions are computed without `int()`, which
    tracing would freeze, and without a check of their values, which TensorRT refuses.
    """
    embeddings = decoder.prophetnet.decoder.position_embeddings
    embeddings.forward = MethodType(_cached_positions, embeddings)
    try:
        with (
            forward_keywords(decoder, lambda keywords: {**keywords, "attention_mask": None}),
            patch.object(modeling_prophetnet, "torch_compilable_check", lambda *_: None),
        ):
            yield
    finally:
        del embeddings.forward


def _cached_positions(
    embeddings: Any, inputs_shape: tuple[int, int], device: torch.device, cache: Any = None, past_key_values: Any = None
) -> tuple[Tensor, Tensor]:
    """Return the embedded position and its id; transformers named the cache `past_key_values` before 5.24."""
    past = (past_key_values if cache is None else cache).get_seq_length()
    if isinstance(past, int) and past == 0:  # only the projections of the encoder are traced without a past
        result: tuple[Tensor, Tensor] = type(embeddings).forward(embeddings, inputs_shape, device)
        return result
    position_ids = torch.ones(1, 1, dtype=torch.long, device=device) * (past + inputs_shape[1])
    return embeddings._forward(position_ids), position_ids


def _max_positions(decoder: PreTrainedModel) -> int:
    """Return the maximum number of tokens; the predicting stream looks one position ahead."""
    embeddings = decoder.prophetnet.decoder.position_embeddings
    if embeddings.padding_idx != 0:
        raise ExportError(
            f"this ProphetNet has pad_token_id {embeddings.padding_idx}; transformers decodes it with a cache only "
            "where that is 0"
        )
    return int(embeddings.num_embeddings) - 2


register_decoder(
    DecoderFamily(
        adapt=float_mask,
        rewrite=one_token,
        encoder_mask=lambda mask, _: mask.float(),
        max_positions=_max_positions,
        max_tokens=1,
        why_not_static="its cached path takes no mask, which would hide the positions that are not written yet",
        why_not_tree="its cached path takes no mask, which would hide the tokens of other beams",
    ),
    "prophetnet",
)
