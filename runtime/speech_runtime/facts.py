"""What the runtime must know of the two halves of a model: a part of the manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .contract import Cache
from .strict import FieldError


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
        """Refuse sizes that no encoder has: `FieldError`."""
        sizes = ("feature_size", "heads", "min_length", "max_length", "stride", "frame_stride")
        _check_positive(self, "encoder", sizes)


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
        """Refuse sizes that no decoder has, a static cache without a length, and another with one: `FieldError`."""
        sizes = ("layers", "heads", "head_dim", "vocab_size", "max_positions", "max_tokens", "top_k", "cache_length")
        _check_positive(self, "decoder", sizes)
        if (self.cache == "static") != (self.cache_length is not None):
            stated = f"decoder.cache is {self.cache!r} and decoder.cache_length is {self.cache_length}"
            raise FieldError([f"{stated}, but a static cache has a length, and only a static one"])

    @property
    def longest(self) -> int | None:
        """Tokens that a step may have before it and its own, whatever limits them; None where nothing does."""
        known = [limit for limit in (self.max_positions, self.cache_length) if limit is not None]
        return min(known, default=None)


def _check_positive(facts: object, name: str, sizes: Sequence[str]) -> None:
    values = {size: getattr(facts, size) for size in sizes}
    problems = [
        f"{name}.{size} is {value}, it must be at least 1"
        for size, value in values.items()
        if value is not None and value < 1
    ]
    if problems:
        raise FieldError(problems)
