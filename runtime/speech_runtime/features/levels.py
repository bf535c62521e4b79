"""Clips of which a feature extractor would leave nothing to hear."""

import numpy as np

from ..audio import Samples
from ..errors import AudioError

_QUIETEST = 1e-4
"""Standard deviation. Normalisation divides by the square root of the variance plus 1e-7, which leaves 0.3 of such a
clip, and 0.03 of one ten times as quiet: of 12 clips of the bundled model that are scaled so, all are heard at 2e-4, 10
at 8e-5 and 6 at 2e-5."""

_LEAST_SHARE = 0.25
"""Of the standard deviation, what is left without the spikes: of the same 12 clips, all are heard with 0.4, 9 with 0.13
and 4 with 0.04."""

_MOST_SPIKES = 0.01
"""More samples than this share are not spikes: the clip has another scale as a whole."""

_FRAME = 320
"""Samples, 20 ms of a voice: far longer than a click, far shorter than a word."""

_FRAMES_OF_A_WORD = 3
"""So many frames are as loud as the loudest of a clip with anything to hear, and as none of it where it has clicks."""

_LEAST_SPREAD = 0.1
"""What normalisation leaves of the spread of these frames. 2,903 clean clips have 0.34 or more, as they are and scaled
by 0.05 and 0.01. Of 6 clips of the bundled model with one click at 0.9, all are heard scaled by 0.02 (0.24 or more), 5
by 0.01 (0.12 or more) and none by 0.001 (0.075 or less)."""

_AT_ONCE = 2**12
"""Frames that are sorted together."""


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
    """Check that a few samples far above all others do not make silence of these, once they are normalised.

    Raises:
        AudioError: they do.
    """
    deviation = float(samples.std(dtype=np.float64))
    within = samples[np.abs(samples) <= 1]
    spikes = samples.size - within.size
    if 0 < spikes < _MOST_SPIKES * samples.size and within.std(dtype=np.float64) < _LEAST_SHARE * deviation:
        raise AudioError(
            f"{name}: has {spikes:,} samples beyond full scale, up to {np.abs(samples).max():.3g}, beside which the "
            "feature extractor makes silence of all others; limit its samples to ±1"
        )
    if (spread := _spread(samples)) < _LEAST_SPREAD * np.sqrt(deviation**2 + 1e-7):
        raise AudioError(
            f"{name}: has clicks or spikes up to {np.abs(samples).max():.3g}, beside which the feature extractor makes "
            f"silence of all else, which is no louder than {spread:.1e}; cut them out, or limit its samples to the "
            "loudness of speech"
        )


def _spread(samples: Samples) -> float:
    """How far the samples of the loudest frames are apart, an eighth of them left out at either end: no click counts.

    Of a clip shorter than a frame, it is that of all its samples.
    """
    size = min(_FRAME, samples.size)
    frames = samples[: samples.size // size * size].reshape(-1, size)
    low, high = size // 8, size - 1 - size // 8
    spreads = []
    for begin in range(0, len(frames), _AT_ONCE):
        ordered = np.partition(frames[begin : begin + _AT_ONCE], (low, high), axis=1)
        spreads.append((ordered[:, high] - ordered[:, low]) / 2)
    return float(np.sort(np.concatenate(spreads))[-_FRAMES_OF_A_WORD:][0])
