"""Log-mel spectrograms of a fixed length: the Audio Spectrogram Transformer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError
from .. import Samples
from .filter_bank import frame_count, log_mel_filter_bank, samples_of
from .shared import check_absolute_level, check_least, check_longest


@dataclass(frozen=True)
class SpectrogramExtractor:
    """Equal to transformers' `ASTFeatureExtractor`, but for audio that is too long.

    transformers silently cuts a clip after `max_length` frames. Here that is an error, since half a transcription looks
    like a complete one. `SpeechToTextExtractor` explains the two definitions of the filter banks, and why the rate must
    be 16 kHz.

    Attributes:
        sampling_rate: Sampling rate in Hz.
        num_mel_bins: Mel bands per frame.
        max_length: Frames of every clip; missing ones are zeros before the normalisation.
        do_normalize: If true, features are normalised with `mean` and `std`.
        mean: Mean of the training data.
        std: Standard deviation of the training data; features are divided by twice this value.
    """

    sampling_rate: Literal[16000] = 16000
    num_mel_bins: int = 128
    max_length: int = 1024
    do_normalize: bool = True
    mean: float = -4.2677393
    std: float = 4.5689974

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_least(self, num_mel_bins=1, max_length=1)
        if self.std == 0:
            raise BundleError("std is 0, features cannot be divided by it")

    @property
    def width(self) -> int:
        """Features per frame."""
        return self.num_mel_bins

    def input_length(self, samples: int, name: str = "the clip") -> int:
        """Return `max_length`, the number of frames for every clip.

        Raises:
            AudioError: The clip has no analysis frame, or more than `max_length`.
        """
        self._frames(samples, name)
        return self.max_length

    def check_level(self, samples: Samples, name: str) -> None:
        """See `check_absolute_level`."""
        check_absolute_level(samples, name)

    def __call__(self, clips: Sequence[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Analyse, pad and normalise clips.

        Args:
            clips: float32 [samples] each, at `sampling_rate`, full scale ±1.

        Returns:
            float32 [batch, max_length, num_mel_bins], and an attention mask of ones, int64 [batch, max_length]: the
            encoder attends to the padding too.

        Raises:
            AudioError: See `input_length`.
        """
        values = np.zeros((len(clips), self.max_length, self.num_mel_bins), dtype=np.float32)
        for i, (row, clip) in enumerate(zip(values, clips, strict=True)):
            frames = self._frames(clip.size, f"clip {i}")
            row[:frames] = log_mel_filter_bank(clip, self.num_mel_bins, self.sampling_rate, "hann")
        if self.do_normalize:
            values = (values - self.mean) / (self.std * 2)
        return values, np.ones(values.shape[:2], dtype=np.int64)

    def _frames(self, samples: int, name: str) -> int:
        check_longest(samples, samples_of(self.max_length + 1) - 1, self.sampling_rate, name)
        return frame_count(samples, self.sampling_rate, 1, name)
