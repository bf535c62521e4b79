"""Example inputs of a decoder step to trace it with, for each kind of cache, and the names of dynamic dimensions."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from speech_runtime.bundle.graph_io import (
    BEAM_IDX,
    ENCODER_ATTENTION_MASK,
    INPUT_IDS,
    PAST_LENGTH,
    PAST_ROWS,
    POSITION_IDS,
    SLOT_MASK,
    WRITE_SLOT,
)
from speech_runtime.bundle.model_facts import DecoderFacts

SIZES = {"batch": 2, "beams": 3, "past_beams": 4, "tokens": 6, "past": 5, "frames": 23, "queries": 18, "slots": 40}
"""Sizes of dynamic dimensions. All differ and none is 0 or 1, so that tracing keeps every one dynamic, and apart from
the others; queries are all tokens of all beams."""

Shape = tuple[int | str, ...]
"""Sizes of a tensor; those in `SIZES` by name."""


def step_examples(decoder: DecoderFacts) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the examples and dynamic dimensions of all inputs of a step, in the order of its module's arguments."""
    inputs: Mapping[str, Shape] = {
        INPUT_IDS: ("batch", "beams", decoder.max_tokens or "tokens"),
        **_places(decoder),
        ENCODER_ATTENTION_MASK: ("batch", "frames"),
    }
    examples: list[Any] = [torch.ones(_sizes(shape), dtype=_dtype(name)) for name, shape in inputs.items()]
    dynamic: dict[str, Any] = {name: _dynamic(shape) for name, shape in inputs.items()}
    for name, shape in zip(("past", "cross"), _caches(decoder), strict=True):
        examples.append([_pair(shape) for _ in range(decoder.layers)])
        dynamic[name] = [(_dynamic(shape), _dynamic(shape))] * decoder.layers
    return tuple(examples), dynamic


def _places(decoder: DecoderFacts) -> Mapping[str, Shape]:
    """Return the shapes of the inputs that say where the past of each beam is."""
    if decoder.cache == "tree":
        return {POSITION_IDS: ("queries",), WRITE_SLOT: ("batch",), SLOT_MASK: ("batch", "queries", "slots")}
    if decoder.cache == "static":
        return {PAST_ROWS: ("batch", "beams"), PAST_LENGTH: (1,)}
    return {BEAM_IDX: ("batch", "beams")}


def _caches(decoder: DecoderFacts) -> tuple[Shape, Shape]:
    """Return the shapes of the keys, or values, of one layer's self-attention and cross-attention caches."""
    heads, head_dim = decoder.heads, decoder.head_dim
    if decoder.cache == "tree":
        return ("batch", "slots", heads * head_dim), ("batch", "frames", heads * head_dim)
    past: Shape = ("batch", "past_beams", heads, decoder.cache_length or "past", head_dim)
    return past, ("batch", heads, "frames", head_dim)


def _dtype(name: str) -> torch.dtype:
    return torch.bool if name == SLOT_MASK else torch.int64


def _pair(shape: Shape) -> tuple[Tensor, Tensor]:
    return torch.randn(_sizes(shape)), torch.randn(_sizes(shape))


def _sizes(shape: Shape) -> list[int]:
    return [SIZES[size] if isinstance(size, str) else size for size in shape]


def _dynamic(shape: Shape) -> dict[int, str]:
    return {axis: size for axis, size in enumerate(shape) if isinstance(size, str)}
