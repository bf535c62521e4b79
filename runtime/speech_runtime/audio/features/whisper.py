"""Log-mel spectrograms of a fixed window, 30 s long: Whisper."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError
from .. import Samples
from .mel_spectrogram import mel_spectrogram, slaney_filters
from .shared import check_absolute_level, check_even, check_least, check_longest, length_mask

_HIGHEST_FREQUENCY = 8000
"""End of the highest band in Hz. transformers does not scale it with the sampling rate."""

_MEL_FLOOR = 1e-10
_DYNAMIC_RANGE = 8
"""Powers of ten from the loudest band of a clip down to the quietest that is told apart: 80 dB."""


@dataclass(frozen=True)
class WhisperExtractor:
    """Equal to transformers' `WhisperFeatureExtractor`, but for audio that is too long.

    transformers silently cuts a clip after `chunk_length` seconds. Here that is an error, since half a transcription
    looks like a complete one. transformers computes with torch in float32 where torch is installed, and with numpy in
    float64 elsewhere; this class equals both, within the rounding of the former.

    Frames come before features, as in all extractors here; transformers returns [batch, features, time].

    Attributes:
        feature_size: Mel bands per frame; transformers pads no clip with a single one.
        sampling_rate: Sampling rate in Hz.
        hop_length: Samples from frame to frame.
        chunk_length: Length of the window in seconds; every clip is padded to it.
        n_fft: Samples per frame.
        padding_value: Sample after the end of a clip.
        dither: Always 0, so that features do not differ from call to call.
        padding_side: Side of the padding; always the end.
    """

    feature_size: int = 80
    sampling_rate: int = 16000
    hop_length: int = 160
    chunk_length: int = 30
    n_fft: int = 400
    padding_value: float = 0.0
    dither: Literal[0] = 0
    padding_side: Literal["right"] = "right"

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_least(self, feature_size=2, sampling_rate=2, hop_length=1, chunk_length=1, n_fft=2)
        check_even(self, "n_fft")
        if self._window_samples <= max(self.n_fft // 2, self.hop_length - 1):
            raise BundleError(
                f"chunk_length is {self.chunk_length}: its {self._window_samples:,} samples are too few for n_fft "
                f"{self.n_fft:,} and hop_length {self.hop_length:,}"
            )

    @property
    def width(self) -> int:
        """Features per frame."""
        return self.feature_size

    def input_length(self, samples: int, name: str = "the clip") -> int:
        """Return the number of frames in the window, which is the same for every clip.

        Raises:
            AudioError: The clip is longer than the window.
        """
        check_longest(samples, self._window_samples, self.sampling_rate, name)
        return self._window_samples // self.hop_length

    def check_level(self, samples: Samples, name: str) -> None:
        """See `check_absolute_level`."""
        check_absolute_level(samples, name)

    def __call__(self, clips: Sequence[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Pad clips to the window and analyse them.

        Args:
            clips: float32 [samples] each, at `sampling_rate`, full scale ±1.

        Returns:
            float32 [batch, time, feature_size], and the attention mask int64 [batch, time] that transformers returns
            with `return_attention_mask=True`: 1 for frames whose first sample is in the clip.

        Raises:
            AudioError: A clip is longer than the window.
        """
        for i, clip in enumerate(clips):
            self.input_length(clip.size, f"clip {i}")
        frames = self.input_length(0)
        values = np.empty((len(clips), frames, self.feature_size), dtype=np.float32)
        for row, clip in zip(values, clips, strict=True):
            features = self._features(clip)[:frames]
            row[: len(features)] = features
            row[len(features) :] = features[-1]
        return values, length_mask([-(-clip.size // self.hop_length) for clip in clips], frames)

    @property
    def _window_samples(self) -> int:
        return self.chunk_length * self.sampling_rate

    def _features(self, clip: Samples) -> NDArray[np.float64]:
        """Return features up to the first frame that is padding alone, since all others equal it."""
        half = self.n_fft // 2
        window = np.full(min(self._window_samples, clip.size + half + self.hop_length), self.padding_value, np.float32)
        window[: clip.size] = clip
        filters = slaney_filters(self.feature_size, self.n_fft, self.sampling_rate, _HIGHEST_FREQUENCY)
        energies = mel_spectrogram(
            np.pad(window, half, mode="reflect"), np.hanning(self.n_fft + 1)[:-1], self.hop_length, filters
        )
        logarithms = np.log10(np.maximum(energies[: self.input_length(0)], _MEL_FLOOR))
        clamped: NDArray[np.float64] = np.maximum(logarithms, logarithms.max() - _DYNAMIC_RANGE)
        return (clamped + 4) / 4
