"""Mel spectrograms as `torch.stft` and librosa define them: in float64, with numpy.

torch computes them in float32. In a quiet band beside a loud one its error is the larger one, so float64 stays nearest
to it, and with numpy it costs hardly more time.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .. import Samples
from .filter_bank import FRAMES_AT_ONCE, triangular_filters

_LINEAR_HERTZ = 200 / 3
"""Width of one mel in Hz below `_LOGARITHMIC_FROM`. Above, a mel is a factor."""

_LOGARITHMIC_FROM = 1000.0
_MELS_PER_FACTOR = 27 / np.log(6.4)


def mel_spectrogram(
    samples: Samples, window: NDArray[np.float64], hop_length: int, filters: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the energy in each mel band of each frame.

    Equal to `filters @ torch.stft(samples, n_fft, hop_length, window=window, center=False).abs() ** 2`, transposed.

    Args:
        samples: float32 [samples], padded at both ends.
        window: Weights of the samples in a frame [n_fft].
        hop_length: Samples from frame to frame.
        filters: Weights of the frequencies [bands, n_fft // 2 + 1].

    Returns:
        float64 [frames, bands].
    """
    frames = np.lib.stride_tricks.sliding_window_view(samples, window.size)[::hop_length]
    energies = np.empty((len(frames), len(filters)))
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        spectrum = np.fft.rfft(frames[start : start + FRAMES_AT_ONCE] * window)
        power = spectrum.real**2 + spectrum.imag**2
        np.matmul(power, filters.T, out=energies[start : start + len(power)])
    return energies


@lru_cache(maxsize=4)
def slaney_filters(bands: int, n_fft: int, sampling_rate: int, highest: float) -> NDArray[np.float64]:
    """Return triangular filters on Slaney's mel scale, from 0 Hz to `highest`, each with an area of 1.

    Equal to `transformers.audio_utils.mel_filter_bank(…, norm="slaney", mel_scale="slaney")`, transposed.

    Args:
        bands: Number of mel bands.
        n_fft: Length of the Fourier transform in samples.
        sampling_rate: Sampling rate in Hz.
        highest: End of the highest band in Hz.

    Returns:
        float64 [bands, n_fft // 2 + 1].
    """
    edges = _hertz(np.linspace(0, _mel(highest), bands + 2))
    filters = triangular_filters(edges, np.linspace(0, sampling_rate // 2, n_fft // 2 + 1))
    return filters * (2 / (edges[2:] - edges[:-2]))[:, None]


def _mel(frequency: float) -> float:
    if frequency < _LOGARITHMIC_FROM:
        return frequency / _LINEAR_HERTZ
    return float(_LOGARITHMIC_FROM / _LINEAR_HERTZ + np.log(frequency / _LOGARITHMIC_FROM) * _MELS_PER_FACTOR)


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    beyond = mels - _LOGARITHMIC_FROM / _LINEAR_HERTZ
    return np.where(beyond < 0, mels * _LINEAR_HERTZ, _LOGARITHMIC_FROM * np.exp(beyond / _MELS_PER_FACTOR))
