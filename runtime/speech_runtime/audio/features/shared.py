"""Parts that the feature extractors share: checks of settings and of loudness, and padding to a batch."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import AudioError, BundleError
from .. import Samples

Number = TypeVar("Number", np.float16, np.float32, np.int64)

_QUIETEST = 1e-4
"""Lowest standard deviation of a clip. Normalisation divides by the square root of the variance plus 1e-7, which scales
such a clip to 0.3, and one ten times as quiet to 0.03. Of 12 clips of the bundled model, scaled to a
deviation, all are transcribed at 2e-4, 10 at 8e-5 and 6 at 2e-5."""

_LOUDEST = 1.0
"""Highest standard deviation of a clip, that of a square wave at full scale."""

_LEAST_SHARE = 0.25
"""Lowest share of the standard deviation that must remain without the spikes. Of the same 12 clips, all are transcribed
with 0.4, 9 with 0.13 and 4 with 0.04."""

_MOST_SPIKES = 0.01
"""Largest share of samples that can be spikes. With more of them, the clip as a whole has another scale."""


def check_least(settings: object, **least: float) -> None:
    """Check that attributes of `settings` are not below the given values.

    Raises:
        BundleError: Some are below; all of them are listed.
    """
    problems = [
        f"{name} is {value}, it must be at least {minimum}"
        for name, minimum in least.items()
        if (value := getattr(settings, name)) < minimum
    ]
    if problems:
        raise BundleError("; ".join(problems))


def check_even(settings: object, name: str) -> None:
    """Check that the attribute `name` of `settings` is even.

    Raises:
        BundleError: It is odd.
    """
    if (value := getattr(settings, name)) % 2:
        raise BundleError(f"{name} is {value}, it must be even")


def check_shortest(samples: int, least: int, sampling_rate: int, name: str) -> None:
    """Check that a clip has at least so many samples.

    Raises:
        AudioError: It has fewer; the message names the clip.
    """
    if samples < least:
        raise AudioError(
            f"{name}: has {samples} samples ({samples / sampling_rate:.3f} s), its features need at least {least} "
            f"({least / sampling_rate:.3f} s); leave the clip out or pad it with silence"
        )


def check_longest(samples: int, most: int, sampling_rate: int, name: str) -> None:
    """Check that a clip has at most so many samples.

    Raises:
        AudioError: It has more; the message names the clip.
    """
    if samples > most:
        raise AudioError(
            f"{name}: lasts {samples / sampling_rate:.2f} s ({samples:,} samples), the model takes at most "
            f"{most / sampling_rate:.2f} s ({most:,} samples); split the audio into shorter pieces"
        )


def check_loudness(samples: Samples, name: str) -> None:
    """Check that a clip is not too quiet for features that depend on its absolute level.

    Raises:
        AudioError: It is too quiet.
    """
    if (deviation := float(samples.std(dtype=np.float64))) < _QUIETEST:
        raise AudioError(
            f"{name}: is too quiet: the standard deviation of its samples is {deviation:.1e}, and below {_QUIETEST:g} "
            "the feature extractor turns it into silence; amplify it, full scale is ±1"
        )


def check_full_scale(samples: Samples, name: str) -> None:
    """Check that a clip is in the scale of ±1, for features that depend on its absolute level.

    Raises:
        AudioError: It is in another scale.
    """
    if (deviation := float(samples.std(dtype=np.float64))) > _LOUDEST:
        raise AudioError(
            f"{name}: is too loud: the standard deviation of its samples is {deviation:.3g}, but full scale is ±1; "
            "divide its samples by their full scale, 32768 for those of 16 bits"
        )


def check_absolute_level(samples: Samples, name: str) -> None:
    """Check that a clip is neither too quiet nor in another scale, for features that depend on its absolute level.

    Raises:
        AudioError: It is.
    """
    check_loudness(samples, name)
    check_full_scale(samples, name)


def check_spikes(samples: Samples, name: str) -> None:
    """Check that a few samples far beyond full scale do not turn all others into silence in normalisation.

    Raises:
        AudioError: They do.
    """
    within = samples[np.abs(samples) <= 1]
    spikes = samples.size - within.size
    if not 0 < spikes < _MOST_SPIKES * samples.size:
        return
    if within.std(dtype=np.float64) < _LEAST_SHARE * samples.std(dtype=np.float64):
        raise AudioError(
            f"{name}: has {spikes:,} samples beyond full scale, up to {np.abs(samples).max():.3g}, and the feature "
            "extractor turns all others into silence; limit its samples to ±1"
        )


def pad(rows: Sequence[NDArray[Number]], value: float, multiple: int = 1) -> tuple[NDArray[Number], NDArray[np.int64]]:
    """Pad rows at their end to the length of the longest.

    Args:
        rows: [length, …] each, equal except for their lengths, of one dtype.
        value: Padding value.
        multiple: The common length is rounded up to a multiple of it.

    Returns:
        [batch, length, …] of that dtype, and a mask int64 [batch, length]: 1 for the row, 0 for padding.
    """
    lengths = [len(row) for row in rows]
    longest = -(-max(lengths) // multiple) * multiple
    values = np.full((len(rows), longest, *rows[0].shape[1:]), value, dtype=rows[0].dtype)
    for padded, row in zip(values, rows, strict=True):
        padded[: len(row)] = row
    return values, length_mask(lengths, longest)


def length_mask(lengths: Sequence[int], longest: int) -> NDArray[np.int64]:
    """Return int64 [batch, longest]: as many ones as each length says, then zeros."""
    return (np.arange(longest) < np.array(lengths)[:, None]).astype(np.int64)
