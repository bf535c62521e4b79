"""What an encoder cannot take is refused here, before it fails deep inside a graph, or answers wrongly."""

import os

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

    Raises:
        AudioError: another rank or dtype, not finite, a mask that does not fit, or a row shorter than one frame.
    """
    values = np.asarray(inputs)
    rank, shape = (2, "[batch, samples]") if encoder.input_name == "input_values" else (3, "[batch, time, features]")
    if values.ndim != rank or values.dtype.kind != "f":
        raise AudioError(
            f"{name}: {encoder.input_name} must be floating-point {shape}, got {values.dtype} {list(values.shape)}"
        )
    if values.size == 0:
        raise AudioError(f"{name}: {encoder.input_name} is empty, its shape is {list(values.shape)}")
    if not np.isfinite(values).all():
        count = np.count_nonzero(~np.isfinite(values))
        raise AudioError(f"{name}: {encoder.input_name} has {count:,} values that are NaN or infinite")
    mask = _check_mask(attention_mask, values.shape[:2])
    lengths = mask.sum(axis=1)
    shortest = int(lengths.argmin())
    if lengths[shortest] < encoder.receptive_field:
        where = f"row {shortest} of {name}" if len(lengths) > 1 else name
        raise AudioError(
            f"{where}: has {lengths[shortest]} samples, the encoder needs at least {encoder.receptive_field} for its "
            "first frame; leave the clip out or pad it with silence"
        )
    return np.ascontiguousarray(values, dtype=np.float32), mask


def check_memory(batch: int, samples: int, encoder: EncoderFacts, name: str = "the input") -> None:
    """Refuse audio whose self-attention, quadratic in its length, cannot fit this machine's memory.

    Raises:
        AudioError: says how much would be needed.
    """
    frames = samples // encoder.samples_per_frame
    needed, memory = batch * encoder.heads * frames * frames * _BYTES_PER_SCORE, _physical_memory()
    if needed > memory:
        raise AudioError(
            f"{name}: {batch} × {samples:,} samples would need about {needed / 2**30:,.0f} GiB for the encoder's "
            f"attention, this machine has {memory / 2**30:,.0f} GiB; split the audio into shorter pieces"
        )


def _check_mask(attention_mask: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.int64]:
    if attention_mask is None:
        return np.ones(shape, dtype=np.int64)
    mask = np.asarray(attention_mask)
    if mask.shape != shape or mask.dtype.kind not in "iub":
        raise AudioError(
            f"attention_mask must be integers of the input's shape {list(shape)}, got {mask.dtype} {list(mask.shape)}"
        )
    mask = mask.astype(np.int64)
    if not np.isin(mask, (0, 1)).all() or (np.diff(mask, axis=1) > 0).any():
        raise AudioError("attention_mask must be ones followed by zeros in every row: pad at the end")
    return mask


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
