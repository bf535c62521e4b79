"""Log-mel spectrograms of NeMo, normalised over the clip: Canary, on Parakeet's encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError
from .. import Samples
from .mel_spectrogram import mel_spectrogram, slaney_filters
from .shared import check_even, check_least, check_loudness, check_shortest, length_mask

_ZERO_GUARD = 2**-24
"""Added to energies, so that their logarithm is finite."""

_DEVIATION_GUARD = 1e-5
_LEAST_FRAMES = 2
"""The variance of a single frame is not defined."""


@dataclass(frozen=True)
class ParakeetExtractor:
    """Equal to transformers' `ParakeetFeatureExtractor` called with `padding=True`.

    transformers computes with torch in float32, and here it is float64. The normalisation scales the rounding errors of
    float32 up in bands without sound, to 0.3 in speech with nothing above 4 kHz; those of float64 remain nothing.

    Attributes:
        feature_size: Mel bands per frame; transformers pads no clip with a single one.
        sampling_rate: Sampling rate in Hz.
        hop_length: Samples from frame to frame.
        n_fft: Length of the Fourier transform in samples.
        win_length: Length of the window, in the middle of a frame.
        preemphasis: Share of the sample before that is taken off each sample; None for 0.
        padding_value: Always 0, so that features do not depend on the batch.
        padding_side: Side of the padding; always the end.
    """

    feature_size: int = 80
    sampling_rate: int = 16000
    hop_length: int = 160
    n_fft: int = 512
    win_length: int = 400
    preemphasis: float | None = 0.97
    padding_value: Literal[0] = 0
    padding_side: Literal["right"] = "right"

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_least(self, feature_size=2, sampling_rate=2, hop_length=1, n_fft=2, win_length=1)
        check_even(self, "n_fft")
        if self.win_length > self.n_fft:
            raise BundleError(f"win_length is {self.win_length}, it must not be above n_fft, {self.n_fft}")

    @property
    def width(self) -> int:
        """Features per frame."""
        return self.feature_size

    def input_length(self, samples: int, name: str = "the clip") -> int:
        """Return the number of frames that the attention mask keeps.

        Raises:
            AudioError: There are fewer than two.
        """
        check_shortest(samples, _LEAST_FRAMES * self.hop_length, self.sampling_rate, name)
        return samples // self.hop_length

    def check_level(self, samples: Samples, name: str) -> None:
        """Check that a clip is not too quiet: all energies below a fixed floor become equal.

        Raises:
            AudioError: It is too quiet.
        """
        check_loudness(samples, name)

    def __call__(self, clips: Sequence[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Analyse, normalise and pad clips.

        Args:
            clips: float32 [samples] each, at `sampling_rate`, full scale ±1.

        Returns:
            float32 [batch, time, feature_size], and the attention mask int64 [batch, time]. As in transformers, there
            is one frame more than the mask ever keeps: the last one of the longest clip.

        Raises:
            AudioError: See `input_length`.
        """
        lengths = [self.input_length(clip.size, f"clip {i}") for i, clip in enumerate(clips)]
        mask = length_mask(lengths, 1 + max(lengths))
        values = np.zeros((*mask.shape, self.feature_size), dtype=np.float32)
        for row, clip, length in zip(values, clips, lengths, strict=True):
            row[:length] = self._normalized(clip, length)
        return values, mask

    def _normalized(self, clip: Samples, frames: int) -> NDArray[np.float64]:
        """Return features with zero mean and unit variance in each mel band."""
        if self.preemphasis is not None:
            clip = np.concatenate([clip[:1], clip[1:] - self.preemphasis * clip[:-1]])
        left = (self.n_fft - self.win_length) // 2
        window = np.pad(np.hanning(self.win_length), (left, self.n_fft - self.win_length - left))
        filters = slaney_filters(self.feature_size, self.n_fft, self.sampling_rate, self.sampling_rate / 2)
        energies = mel_spectrogram(np.pad(clip, self.n_fft // 2), window, self.hop_length, filters)
        features = np.log(energies[:frames] + _ZERO_GUARD)
        normalized: NDArray[np.float64] = (features - features.mean(axis=0)) / (
            features.std(axis=0, ddof=1) + _DEVIATION_GUARD
        )
        return normalized
