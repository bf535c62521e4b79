"""What an encoder cannot take is refused here, before it fails deep inside a graph, or answers wrongly."""

import os
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .audio import Samples
from .bundle import EncoderFacts
from .errors import AudioError

_BYTES_PER_SCORE = 3 * 4
"""Attention scores are alive about three times at once: before and after the softmax, and as a copy."""


def check_inputs(
    inputs: ArrayLike, attention_mask: ArrayLike | None, encoder: EncoderFacts, name: str = "the input"
) -> tuple[Samples, NDArray[np.int64]]:
    """Check model input: float32 [batch, samples] (or [batch, time, features]) and its mask int64 [batch, samples].

    A row shorter than one frame is refused: transformers takes all frames of such a row for audio.

    Raises:
        AudioError: another shape or dtype, not finite, a mask that does not fit, or a row that is too short or long.
    """
    values = np.asarray(inputs)
    features = encoder.feature_size
    shape = "[batch, samples]" if features is None else f"[batch, time, {features}]"
    if values.ndim != (2 if features is None else 3) or values.dtype.kind != "f":
        raise AudioError(
            f"{name}: {encoder.input_name} must be floating-point {shape}, got {values.dtype} {list(values.shape)}"
        )
    if values.size == 0:
        raise AudioError(f"{name}: {encoder.input_name} is empty, its shape is {list(values.shape)}")
    if features is not None and values.shape[2] != features:
        raise AudioError(f"{name}: {encoder.input_name} must be {shape}, got {list(values.shape)}")
    if not np.isfinite(values).all():
        count = np.count_nonzero(~np.isfinite(values))
        raise AudioError(f"{name}: {encoder.input_name} has {count:,} values that are NaN or infinite")
    if attention_mask is None:
        mask, lengths = np.ones(values.shape[:2], dtype=np.int64), np.full(len(values), values.shape[1])
    else:
        mask = _checked_mask(attention_mask, values.shape[:2])
        lengths = mask.sum(axis=1)
    check_lengths(lengths, encoder, name)
    return np.ascontiguousarray(values, dtype=np.float32), mask


def check_lengths(lengths: NDArray[np.int64], encoder: EncoderFacts, name: str) -> None:
    """Check that every row has an encoder frame at least, and no more than the encoder has positions for.

    Raises:
        AudioError: names the row.
    """
    unit = "samples" if encoder.feature_size is None else "feature frames"
    shortest, longest = int(lengths.argmin()), int(lengths.argmax())
    if lengths[shortest] < encoder.min_length:
        raise AudioError(
            f"{_row(shortest, lengths, name)}: has {lengths[shortest]:,} {unit}, the encoder needs at least "
            f"{encoder.min_length:,} for its first frame; leave the clip out or pad it with silence"
        )
    if encoder.max_length is not None and lengths[longest] > encoder.max_length:
        raise AudioError(
            f"{_row(longest, lengths, name)}: has {lengths[longest]:,} {unit}, the encoder has positions for "
            f"{encoder.max_length:,} at most; split the audio into shorter pieces"
        )


def _row(row: int, lengths: NDArray[np.int64], name: str) -> str:
    return f"row {row} of {name}" if len(lengths) > 1 else name


def check_memory(batch: int, samples: int, encoder: EncoderFacts, name: str = "the input") -> None:
    """Refuse audio whose self-attention, quadratic in its length, cannot fit this machine's memory.

    Raises:
        AudioError: says how much would be needed.
    """
    if not fits_memory(batch, samples, encoder):
        needed, memory = _attention_bytes(batch, samples, encoder), _physical_memory()
        raise AudioError(
            f"{name}: {batch} × {samples:,} samples would need about {needed / 2**30:,.0f} GiB for the encoder's "
            f"attention, this machine has {memory / 2**30:,.0f} GiB; split the audio into shorter pieces"
        )


def fits_memory(batch: int, samples: int, encoder: EncoderFacts) -> bool:
    """Whether the encoder's self-attention over a batch fits this machine's memory."""
    return _attention_bytes(batch, samples, encoder) <= _physical_memory()


def _attention_bytes(batch: int, samples: int, encoder: EncoderFacts) -> int:
    frames = samples // encoder.stride
    return batch * encoder.heads * frames * frames * _BYTES_PER_SCORE


def _checked_mask(attention_mask: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.int64]:
    mask = np.asarray(attention_mask)
    if mask.shape != shape or mask.dtype.kind not in "iub":
        raise AudioError(
            f"attention_mask must be integers of the input's shape {list(shape)}, got {mask.dtype} {list(mask.shape)}"
        )
    mask = mask.astype(np.int64, copy=False)
    # What never increases is between its last number and its first one.
    if (mask[:, :-1] < mask[:, 1:]).any() or (mask[:, 0] > 1).any() or (mask[:, -1] < 0).any():
        raise AudioError("attention_mask must be ones followed by zeros in every row: pad at the end")
    return mask


@cache
def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
