"""Samples are checked here, and resampled to the model's rate."""

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from .libraries import require
from .limits import AudioLimits

Samples = NDArray[np.float32]

_LOUDEST = 2.0**31
"""Samples beyond this are in no known scale, not even that of 32-bit integers; their squares overflow soon after."""


def prepare(
    samples: object, rate: float, sampling_rate: int, name: str = "audio", limits: AudioLimits | None = None
) -> Samples:
    """Check samples and resample them from `rate` to `sampling_rate` Hz.

    Args:
        samples: floating-point [samples], full scale ±1.
        rate: of `samples`, Hz.
        sampling_rate: of the result, Hz.
        name: what to call the audio in errors.
        limits: the most that a clip may ask for.

    Raises:
        AudioError: another rank or dtype, empty, silent, too loud, or not finite; a rate that is none; too much of it.
    """
    limits = limits or AudioLimits()
    limits.check_rate(rate, name)
    array = _floats(samples, name)
    limits.check_size(array.size, 1, rate, name)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise AudioError(f"{name}: has {np.count_nonzero(~np.isfinite(array)):,} samples that are NaN or infinite")
    lowest, highest = float(array.min()), float(array.max())
    if lowest == highest:
        raise AudioError(f"{name}: is silent: all of its {array.size:,} samples are {array[0]:g}")
    if (loudest := max(-lowest, highest)) > _LOUDEST:
        raise AudioError(f"{name}: has samples up to {loudest:.3g}, full scale is ±1; divide them by their full scale")
    if rate == sampling_rate:
        return array
    resampled: Samples = require("soxr").resample(array, rate, sampling_rate, quality="HQ")
    return resampled


def _floats(samples: object, name: str) -> NDArray[np.floating]:
    try:
        array = np.asarray(samples)
    except Exception as error:  # of a list of unequal lists, or of whatever an object's own conversion raises
        raise AudioError(f"{name}: is no array of samples: {error}") from error
    if array.dtype == object:
        raise AudioError(
            f"{name}: is of type {type(samples).__name__}, which is neither a file nor an array of samples"
        )
    if array.ndim != 1:
        raise AudioError(f"{name}: expected mono samples [samples], got shape {list(array.shape)}; mix the channels")
    if not np.issubdtype(array.dtype, np.floating):
        raise AudioError(
            f"{name}: expected floating-point samples of full scale ±1, got {array.dtype}; "
            "convert first, 16-bit integers for example with samples.astype('float32') / 32768"
        )
    if array.size == 0:
        raise AudioError(f"{name}: is empty: it has no samples")
    return array
