"""Checks of the encoder's input, before it fails deep inside a graph or gives a wrong result."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .audio import Samples, array_of
from .bundle.model_facts import EncoderFacts
from .errors import AudioError
from .system import free_memory_bytes

_LARGEST = float(np.sqrt(np.finfo(np.float32).max))
"""Encoders square their input to normalise it: the squares of larger values overflow and become NaN or silence."""


def check_inputs(
    inputs: ArrayLike, attention_mask: ArrayLike | None, encoder: EncoderFacts, name: str = "the input"
) -> tuple[Samples, NDArray[np.int64]]:
    """Check model input: float32 [batch, samples] (or [batch, time, features]) and its mask int64 [batch, samples].

    A row shorter than one frame is refused: transformers treats all frames of such a row as audio. Features for an
    encoder with a window may also have the shape [batch, features, time], as transformers' Whisper takes them.

    Raises:
        AudioError: The shape or dtype is wrong, a value is not finite, the mask does not fit, or a row is too short or
            too long.
    """
    values = array_of(inputs, f"{name}: {encoder.input_name}")
    features = encoder.feature_size
    if encoder.has_window and values.ndim == 3 and values.shape[1] == features != values.shape[2]:
        values = values.swapaxes(1, 2)
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
    if (largest := max(-float(values.min()), float(values.max()))) > _LARGEST:
        raise AudioError(
            f"{name}: {encoder.input_name} has values up to {largest:.3g}, and beyond {_LARGEST:.3g} their squares "
            "overflow in the encoder; divide the input by its standard deviation"
        )
    if attention_mask is None:
        mask, lengths = np.ones(values.shape[:2], dtype=np.int64), np.full(len(values), values.shape[1])
    else:
        mask = _checked_mask(attention_mask, values.shape[:2])
        lengths = np.full(len(values), values.shape[1]) if encoder.has_window else mask.sum(axis=1)
    check_lengths(lengths, encoder, name)
    return np.ascontiguousarray(values, dtype=np.float32), mask


def check_lengths(lengths: NDArray[np.int64], encoder: EncoderFacts, name: str) -> None:
    """Check that every row has at least one encoder frame, and no more than the encoder has positions for.

    Raises:
        AudioError: A row is too short or too long; the message names it.
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


def check_memory(batch: int, length: int, encoder: EncoderFacts, name: str = "the input") -> None:
    """Check that the model input of a batch, `length` samples or feature frames per row, fits into memory.

    Raises:
        AudioError: It does not fit; the message has the memory needed and the memory available.
    """
    if not fits_memory(batch, length, encoder):
        needed, free = _least_bytes(batch, length, encoder), free_memory_bytes()
        raise AudioError(
            f"{name}: {batch} × {length:,} samples or feature frames need {needed / 2**30:,.2f} GiB of memory or more, "
            f"and this process may use {free / 2**30:,.2f} GiB; split the audio into shorter pieces"
        )


def fits_memory(batch: int, length: int, encoder: EncoderFacts) -> bool:
    """Return true if the model input of a batch fits into the memory that this process may use."""
    return _least_bytes(batch, length, encoder) <= free_memory_bytes()


def _least_bytes(batch: int, length: int, encoder: EncoderFacts) -> int:
    """Return the bytes that every encoder needs: input float32 and mask int64, each copied once by the backend.

    Encoders were measured to need 34 to 2,164 bytes per sample on 30 to 1,200 s of audio, in proportion to the length.
    Only the backend knows how much a graph needs; it raises `EngineMemoryError` if that is too much.
    """
    return batch * length * 2 * (4 * (encoder.feature_size or 1) + 8)


def _checked_mask(attention_mask: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.int64]:
    mask = array_of(attention_mask, "attention_mask")
    if mask.shape != shape or mask.dtype.kind not in "iub":
        raise AudioError(
            f"attention_mask must be integers of the input's shape {list(shape)}, got {mask.dtype} {list(mask.shape)}"
        )
    mask = mask.astype(np.int64, copy=False)
    # Rows that never increase lie between their last and their first number.
    if (mask[:, :-1] < mask[:, 1:]).any() or (mask[:, 0] > 1).any() or (mask[:, -1] < 0).any():
        raise AudioError("attention_mask must be ones followed by zeros in every row: pad at the end")
    return mask
