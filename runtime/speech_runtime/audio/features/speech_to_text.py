"""Log-mel features normalised over the utterance: Speech2Text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import Samples
from .filter_bank import frame_count, log_mel_filter_bank
from .shared import check_least, pad

_INT16_SCALE = 2**15


@dataclass(frozen=True)
class SpeechToTextExtractor:
    """Equal to transformers' `Speech2TextFeatureExtractor` called with `padding=True`.

    transformers has two definitions of the filter banks: its own, and that of torchaudio where it is installed. They
    differ in precision; this class follows the first, which is more precise. At rates other than 16 kHz their windows
    differ in length too, so the rate must be 16 kHz.

    Attributes:
        sampling_rate: Sampling rate in Hz.
        num_mel_bins: Mel bands per frame.
        padding_value: Value after the end of a clip; it is not normalised.
        do_ceptral_normalize: If false, features are not normalised (the spelling is transformers').
        normalize_means: If true, each mel band is shifted to zero mean over the utterance.
        normalize_vars: If true, each mel band is scaled to unit variance over the utterance.
        dither: Always 0, so that features do not differ from call to call.
        padding_side: Side of the padding; always the end.
        feature_size: Must be above 1; transformers tests nothing else of it.
    """

    sampling_rate: Literal[16000] = 16000
    num_mel_bins: int = 80
    padding_value: float = 0.0
    do_ceptral_normalize: bool = True
    normalize_means: bool = True
    normalize_vars: bool = True
    dither: Literal[0] = 0
    padding_side: Literal["right"] = "right"
    feature_size: int = 80

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_least(self, num_mel_bins=1, feature_size=2)

    @property
    def width(self) -> int:
        """Features per frame."""
        return self.num_mel_bins

    def input_length(self, samples: int, name: str = "the clip") -> int:
        """Return the number of analysis frames.

        Raises:
            AudioError: There is no frame, or only one, whose variance cannot be normalised.
        """
        least = 2 if self.do_ceptral_normalize and self.normalize_vars else 1
        return frame_count(samples, self.sampling_rate, least, name)

    def check_level(self, samples: Samples, name: str) -> None:
        """Accept any level: the logarithm turns a factor into a constant offset."""

    def __call__(self, clips: Sequence[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Analyse, pad and normalise clips.

        Args:
            clips: float32 [samples] each, at `sampling_rate`, full scale ±1.

        Returns:
            float32 [batch, time, num_mel_bins], and the attention mask int64 [batch, time].

        Raises:
            AudioError: See `input_length`.
        """
        for i, clip in enumerate(clips):
            self.input_length(clip.size, f"clip {i}")
        features = [
            log_mel_filter_bank(clip * _INT16_SCALE, self.num_mel_bins, self.sampling_rate, "povey") for clip in clips
        ]
        values, mask = pad(features, self.padding_value)
        if self.do_ceptral_normalize:
            for row, length in zip(values, mask.sum(axis=1), strict=True):
                self._normalize(row[:length])
        return values, mask

    def _normalize(self, features: NDArray[np.float32]) -> None:
        """Normalise [frames, num_mel_bins] in place. A constant band is only centred, since scaling it would be 0/0."""
        constant = (features == features[0]).all(axis=0)
        if self.normalize_means:
            features -= features.mean(axis=0)
        if self.normalize_vars:
            features /= np.where(constant, 1, features.std(axis=0))
