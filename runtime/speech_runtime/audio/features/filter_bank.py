"""Log-mel filter banks as Kaldi defines them and transformers computes them: in float64, with numpy.

Kaldi itself and its ports (`kaldi-native-fbank`, `torchaudio.compliance.kaldi`) compute in float32. The error in quiet
bands beside loud ones reaches 0.2 in features of ordinary speech. Kaldi also refuses 128 bands at 16 kHz, since some of
them are narrower than the resolution of the FFT.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import Samples
from .shared import check_shortest

Window = Literal["hann", "povey"]

LOWEST_FREQUENCY = 20
"""Start of the lowest band in Hz. The highest band ends at half the sampling rate."""

_WINDOW_LENGTH, _HOP_LENGTH, _FFT_LENGTH = 400, 160, 512
"""Lengths in samples. transformers does not scale them with the sampling rate."""

_PREEMPHASIS = 0.97
_MEL_FLOOR = 1.192092955078125e-07
FRAMES_AT_ONCE = 128
"""Frames per block: the block fits into the CPU's cache, and a long clip needs no more memory than a short one."""


def log_mel_filter_bank(samples: Samples, bands: int, sampling_rate: int, window: Window) -> NDArray[np.float32]:
    """Return the natural logarithm of the energy in each mel band of each frame.

    Equal to `transformers.audio_utils.spectrogram(…, preemphasis=0.97, log_mel="log", remove_dc_offset=True)` over
    `mel_filter_bank(…, mel_scale="kaldi", triangularize_in_mel_space=True)`, without dither.

    Args:
        samples: float32 [samples], at least one frame.
        bands: Number of mel bands.
        sampling_rate: Sampling rate in Hz.
        window: Name of the window function.

    Returns:
        float32 [frames, bands], stored band by band as in transformers, so that sums over time round alike.
    """
    filters, weights = _mel_filters(bands, sampling_rate), _window(window)
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW_LENGTH)[::_HOP_LENGTH]
    energies = np.empty((bands, len(frames)), dtype=np.float32)
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        block = frames[start : start + FRAMES_AT_ONCE].astype(np.float64)
        block -= block.mean(axis=1, keepdims=True)
        block[:, 1:] -= _PREEMPHASIS * block[:, :-1]
        block[:, 0] *= 1 - _PREEMPHASIS
        block *= weights
        spectrum = np.fft.rfft(block, _FFT_LENGTH).astype(np.complex64)  # transformers keeps it in single precision
        power = np.abs(spectrum, dtype=np.float64) ** 2
        energies[:, start : start + len(block)] = np.log(np.maximum(_MEL_FLOOR, filters @ power.T))
    return energies.T


def frame_count(samples: int, sampling_rate: int, least: int, name: str) -> int:
    """Return the number of complete analysis windows in a clip.

    Raises:
        AudioError: There are fewer than `least`; the message names the clip.
    """
    check_shortest(samples, samples_of(least), sampling_rate, name)
    return 1 + (samples - _WINDOW_LENGTH) // _HOP_LENGTH


def samples_of(frames: int) -> int:
    """Return the number of samples of the shortest clip with so many frames."""
    return _WINDOW_LENGTH + (frames - 1) * _HOP_LENGTH


def triangular_filters(edges: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return filters that rise from each edge to 1 at the next and fall to 0 at the one after: [bands, positions]."""
    distances, widths = edges[:, None] - positions, np.diff(edges)[:, None]
    rising, falling = -distances[:-2] / widths[:-1], distances[2:] / widths[1:]
    return np.maximum(0, np.minimum(rising, falling))


@lru_cache(maxsize=4)
def _mel_filters(bands: int, sampling_rate: int) -> NDArray[np.float64]:
    """Return triangular filters of equal width on the mel scale: [bands, frequencies of the FFT]."""
    edges = np.linspace(_mel(LOWEST_FREQUENCY), _mel(sampling_rate // 2), bands + 2)
    centres = _mel(np.arange(_FFT_LENGTH // 2 + 1) * (sampling_rate / _FFT_LENGTH))
    return triangular_filters(edges, centres)


def _mel(frequency: float | NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(1127 * np.log(1 + frequency / 700))


@lru_cache(maxsize=2)
def _window(name: Window) -> NDArray[np.float64]:
    hann = np.hanning(_WINDOW_LENGTH)
    return hann**0.85 if name == "povey" else hann
