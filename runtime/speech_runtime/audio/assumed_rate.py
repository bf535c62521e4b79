"""Arrays that come without their sampling rate: a warning where they look as if it were not the model's."""

import warnings

import numpy as np

from .checks import array_of

_CD_RATES = (44100, 22050, 11025)
"""Rates of which a whole number of seconds is no round time at any multiple of 8 kHz, the rates of speech models."""


def warn_of_assumed_rate(samples: object, rate: int, name: str) -> None:
    """Warn of samples that are taken to have the model's rate, in Hz, and probably have another one.

    It is no error: an array may well be right. Once a process, as its text is the same for all clips of a kind.

    Raises:
        AudioError: The samples are not an array.
    """
    array = array_of(samples, name)
    if array.ndim != 1 or array.dtype.kind != "f":
        return  # refused later
    if array.dtype == np.float64:
        reason = "it is of float64, as libraries return what they read from a file, at the rate of the file"
    elif (
        array.size
        and rate not in _CD_RATES
        and array.size % rate
        and (found := [other for other in _CD_RATES if not array.size % other])
    ):
        reason = f"its length is a whole number of seconds at {found[0]:,} Hz"
    else:
        return
    warnings.warn(
        f"an array without sampling_rate is taken to have the model's {rate:,} Hz, but {reason}; give sampling_rate=, "
        f"even where it is {rate}",
        stacklevel=2,
    )
