"""What the runtime must know of the two halves of a model: a part of the manifest."""

from dataclasses import dataclass, fields
from typing import Literal

from ..dataclass_json import FieldError
from .graph_io import Cache

_MOST = {"layers": 1_000, "heads": 10_000}
"""Far more than any model has: lists are as long."""
_LEAST = {"min_length": 0, "extra_frames": 0}


def _check_sizes(record: object, where: str) -> None:
    """Refuse a size below 1, or above what a model can have: `FieldError`."""
    problems = []
    for name, value in ((field.name, getattr(record, field.name)) for field in fields(record)):  # type: ignore[arg-type]
        least, most = _LEAST.get(name, 1), _MOST.get(name, 2**31)
        if type(value) is int and not least <= value <= most:
            problems.append(f"{where}.{name} is {value}, expected {least:,} to {most:,}")
    if problems:
        raise FieldError(problems)


@dataclass(frozen=True)
class EncoderFacts:
    """What the runtime must know of the encoder.

    Attributes:
        input_name: what transformers calls the input.
        feature_size: width of one feature frame; None for raw waveforms.
        heads: of its self-attention.
        min_length: samples or feature frames that it needs for its first frame.
        max_length: the most it takes; None where there is no limit.
        stride: samples or feature frames from one frame of self-attention to the next.
        padding_neutral: whether it makes the same of a clip alone as in a padded batch.
        frame_stride: samples or feature frames from one frame of its output to the next, adapters included; None in
            bundles that were made before it was measured.
        extra_frames: an input of n has n // frame_stride + extra_frames frames of output at most.
    """

    input_name: Literal["input_values", "input_features"]
    feature_size: int | None
    heads: int
    min_length: int
    max_length: int | None
    stride: int
    padding_neutral: bool = True
    frame_stride: int | None = None
    extra_frames: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that no model has: `FieldError`."""
        _check_sizes(self, "encoder")


@dataclass(frozen=True)
class DecoderFacts:
    """What the runtime must know of the decoder.

    Attributes:
        layers: with a cache each.
        heads: of the caches.
        head_dim: of the caches.
        vocab_size: logits of a token.
        max_positions: tokens of a sequence; None where there is no limit.
        max_tokens: tokens that one step takes; None for any number.
        top_k: candidates that a step returns.
        cache: how a step keeps what it has seen; see `contract.Cache`.
        cache_length: tokens that a static cache has room for; None where it is none.
        masks_audio: whether it heeds the mask of the encoder's frames, so that more of them may be padding.
    """

    layers: int
    heads: int
    head_dim: int
    vocab_size: int
    max_positions: int | None
    max_tokens: int | None
    top_k: int
    cache: Cache = "growing"
    cache_length: int | None = None
    masks_audio: bool = True

    def __post_init__(self) -> None:
        """Refuse sizes that no model has, a static cache without a length, and another with one: `FieldError`."""
        _check_sizes(self, "decoder")
        if (self.cache == "static") != (self.cache_length is not None):
            stated = f"decoder.cache is {self.cache!r} and decoder.cache_length is {self.cache_length}"
            raise FieldError([f"{stated}, but a static cache has a length, and only a static one"])

    @property
    def longest(self) -> int | None:
        """Tokens that a step may have before it and its own, whatever limits them; None where nothing does."""
        known = [limit for limit in (self.max_positions, self.cache_length) if limit is not None]
        return min(known, default=None)
