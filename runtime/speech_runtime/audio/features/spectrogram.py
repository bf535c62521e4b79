"""Log-mel spectrograms of a fixed length: the Audio Spectrogram Transformer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import AudioError, BundleError
from .. import Samples
from .filter_bank import frame_count, log_mel_filter_bank, samples_of
from .levels import check_loudness
from .ranges import check_least


@dataclass(frozen=True)
class SpectrogramExtractor:
    """Equal to transformers' `ASTFeatureExtractor`, but for audio that is too long.

    transformers cuts what is beyond `max_length` frames and says nothing; here it is an error, since half a
    transcription looks like a whole one. As for the two definitions of the filter banks, and why only 16 kHz is taken,
    see `SpeechToTextExtractor`.

    Attributes:
        sampling_rate: Hz.
        num_mel_bins: of a frame.
        max_length: frames of every clip; the missing ones are zeros before the normalisation.
        do_normalize: with `mean` and `std`.
        mean: of the training data.
        std: of the training data; features are divided by twice as much.
    """

    sampling_rate: Literal[16000] = 16000
    num_mel_bins: int = 128
    max_length: int = 1024
    do_normalize: bool = True
    mean: float = -4.2677393
    std: float = 4.5689974

    def __post_init__(self) -> None:
        """Refuse values that are out of range."""
        check_least(self, num_mel_bins=1, max_length=1)
        if self.std == 0:
            raise BundleError("std is 0, features cannot be divided by it")

    @property
    def width(self) -> int:
        """Features of a frame."""
        return self.num_mel_bins

    def input_length(self, samples: int, name: str = "the clip") -> int:
        """Frames: `max_length`, whatever the clip.

        Raises:
            AudioError: the clip has no analysis frame, or more than `max_length`.
        """
        self._frames(samples, name)
        return self.max_length

    def check_level(self, samples: Samples, name: str) -> None:
        """Check that a clip is not too quiet: energies below a fixed floor are all the same.

        Raises:
            AudioError: it is.
        """
        check_loudness(samples, name)

    def __call__(self, clips: Sequence[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Analyse, pad and normalise clips.

        Args:
            clips: float32 [samples] each, at `sampling_rate`, full scale ±1.

        Returns:
            float32 [batch, max_length, num_mel_bins], and an attention mask of ones, int64 [batch, max_length]: the
            encoder attends to the padding too.

        Raises:
            AudioError: see `input_length`.
        """
        values = np.zeros((len(clips), self.max_length, self.num_mel_bins), dtype=np.float32)
        for i, (row, clip) in enumerate(zip(values, clips, strict=True)):
            frames = self._frames(clip.size, f"clip {i}")
            row[:frames] = log_mel_filter_bank(clip, self.num_mel_bins, self.sampling_rate, "hann")
        if self.do_normalize:
            values = (values - self.mean) / (self.std * 2)
        return values, np.ones(values.shape[:2], dtype=np.int64)

    def _frames(self, samples: int, name: str) -> int:
        frames = frame_count(samples, self.sampling_rate, 1, name)
        if frames > self.max_length:
            longest = (samples_of(self.max_length + 1) - 1) / self.sampling_rate
            raise AudioError(
                f"{name}: lasts {samples / self.sampling_rate:.2f} s, the model takes {longest:.2f} s at most "
                f"({self.max_length:,} feature frames); split the audio into shorter pieces"
            )
        return frames
