"""Clips of which a feature extractor would leave nothing to hear."""

import numpy as np

from ...errors import AudioError
from .. import Samples

_QUIETEST = 1e-4
"""Standard deviation. Normalisation divides by the square root of the variance plus 1e-7, which leaves 0.3 of such a
clip, and 0.03 of one ten times as quiet: of 12 clips of the bundled model that are scaled so, all are heard at 2e-4, 10
at 8e-5 and 6 at 2e-5."""

_LEAST_SHARE = 0.25
"""Of the standard deviation, what is left without the spikes: of the same 12 clips, all are heard with 0.4, 9 with 0.13
and 4 with 0.04."""

_MOST_SPIKES = 0.01
"""More samples than this share are not spikes: the clip has another scale as a whole."""


def check_loudness(samples: Samples, name: str) -> None:
    """Check that a clip is not too quiet for features that are not relative to its own level.

    Raises:
        AudioError: it is.
    """
    if (deviation := float(samples.std(dtype=np.float64))) < _QUIETEST:
        raise AudioError(
            f"{name}: is too quiet: the standard deviation of its samples is {deviation:.1e}, and below {_QUIETEST:g} "
            "the feature extractor makes silence of it; amplify it, full scale is ±1"
        )


def check_spikes(samples: Samples, name: str) -> None:
    """Check that a few samples far beyond full scale do not make silence of all others, once they are normalised.

    Raises:
        AudioError: they do.
    """
    within = samples[np.abs(samples) <= 1]
    spikes = samples.size - within.size
    if not 0 < spikes < _MOST_SPIKES * samples.size:
        return
    if within.std(dtype=np.float64) < _LEAST_SHARE * samples.std(dtype=np.float64):
        raise AudioError(
            f"{name}: has {spikes:,} samples beyond full scale, up to {np.abs(samples).max():.3g}, beside which the "
            "feature extractor makes silence of all others; limit its samples to ±1"
        )
