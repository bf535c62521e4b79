"""Checks of samples, and resampling to the model's rate."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from ..install_hints import import_audio_library
from .limits import AudioLimits

Samples = NDArray[np.float32]

_LOUDEST = 2.0**31
"""Largest sample in any known scale, that of 32-bit integers. The squares of much larger ones would overflow."""


def prepare(
    samples: object, rate: float | None, sampling_rate: int, name: str = "audio", limits: AudioLimits | None = None
) -> Samples:
    """Check samples and resample them from `rate` to `sampling_rate` Hz.

    Args:
        samples: Floating-point [samples], full scale ±1.
        rate: Rate of `samples` in Hz; None if they came without one, for that of the result.
        sampling_rate: Rate of the result in Hz.
        name: Name of the audio in errors.
        limits: Limits of a clip; None for the defaults.

    Raises:
        AudioError: The samples have another rank or dtype, are empty, silent, too loud or not finite; the rate is not
            valid; or they exceed the limits.
    """
    limits = AudioLimits.of(limits)
    array = _floats(samples, name, rate_is_known=rate is not None)
    rate = sampling_rate if rate is None else rate
    limits.check_rate(rate, name)
    limits.check_size(array.size, 1, rate, name)
    with np.errstate(over="ignore"):  # values that are too large become infinite, and are refused below
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise AudioError(f"{name}: has {np.count_nonzero(~np.isfinite(array)):,} samples that are NaN or infinite")
    lowest, highest = float(array.min()), float(array.max())
    if lowest == highest:
        raise AudioError(
            f"{name}: is silent: all of its {array.size:,} samples are {array[0]:g}; check how it was recorded"
        )
    if (loudest := max(-lowest, highest)) > _LOUDEST:
        raise AudioError(f"{name}: has samples up to {loudest:.3g}, full scale is ±1; divide them by their full scale")
    if rate == sampling_rate:
        return array
    resampled: Samples = import_audio_library("soxr").resample(array, rate, sampling_rate, quality="HQ")
    return resampled


def array_of(values: object, name: str) -> NDArray[Any]:
    """Convert values to an array.

    Raises:
        AudioError: They cannot be converted, or some of them are masked.
    """
    try:
        array = np.asarray(values)
    except Exception as error:  # nested lists of unequal lengths, or an error of the object's own conversion
        raise AudioError(f"{name}: is not an array of samples: {error}") from error
    if isinstance(values, np.ma.MaskedArray) and (masked := np.count_nonzero(np.ma.getmaskarray(values))):
        raise AudioError(
            f"{name}: has {masked:,} masked values, which would be used like the others; "
            "fill them, for example with samples.filled(0)"
        )
    return array


def _how_to_make_mono(array: NDArray[Any]) -> str:
    """Return how to make samples of one clip of an array of another rank."""
    if array.ndim == 2 and 1 in array.shape:
        return "take its only row, for example with samples.reshape(-1)"
    return "mix the channels of one clip, or give several clips as a list"


def _floats(samples: object, name: str, *, rate_is_known: bool) -> NDArray[np.floating]:
    array = array_of(samples, name)
    if array.ndim == 0 and array.dtype.kind in "biufc":
        raise AudioError(
            f"{name}: is a single number, {array}; a list is treated as a list of clips: give samples as an array, "
            "for example numpy.array(samples, dtype='float32'), and with their rate as (rate, samples)"
        )
    if array.dtype == object and array.ndim:
        raise AudioError(
            f"{name}: is an array of Python objects (dtype object), not of floating-point samples; convert it first, "
            "for example with samples.astype('float32')"
        )
    if array.dtype == object:
        raise AudioError(
            f"{name}: is of type {type(samples).__name__}, which is neither a file nor an array of samples"
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise AudioError(
            f"{name}: expected floating-point samples of full scale ±1, got {array.dtype}; "
            "convert first, 16-bit integers for example with samples.astype('float32') / 32768"
            f"{'' if rate_is_known else ', and give the rate of their file as sampling_rate'}"
        )
    if array.ndim != 1:
        raise AudioError(
            f"{name}: expected mono samples [samples], got shape {list(array.shape)}; {_how_to_make_mono(array)}"
        )
    if array.size == 0:
        raise AudioError(f"{name}: is empty: it has no samples; record or copy it again")
    return array
