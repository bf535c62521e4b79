"""Log-mel features in pairs of frames: Wav2Vec2-BERT and the speech encoders of SeamlessM4T."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import Samples
from .filter_bank import LOWEST_FREQUENCY, frame_count, log_mel_filter_bank
from .shared import check_least, pad

_INT16_SCALE = 2**15
_VARIANCE_FLOOR = 1e-7
_PAD_TO_MULTIPLE_OF = 2
_LEAST_FRAMES = 2
"""The variance of a single frame is not defined."""


@dataclass(frozen=True)
class SeamlessExtractor:
    """Equal to transformers' `SeamlessM4TFeatureExtractor` called with `padding=True`.

    Attributes:
        sampling_rate: Sampling rate in Hz.
        num_mel_bins: Mel bands per analysis frame.
        padding_value: Value after the end of a clip; it is not normalised.
        stride: Analysis frames that are stacked into one frame of the encoder.
        return_attention_mask: If true, the encoder was trained with a mask.
        padding_side: Side of the padding; always the end.
        feature_size: Must be above 1; transformers tests nothing else of it.
    """

    sampling_rate: int = 16000
    num_mel_bins: int = 80
    padding_value: float = 0.0
    stride: int = 2
    return_attention_mask: bool = True
    padding_side: Literal["right"] = "right"
    feature_size: int = 80

    def __post_init__(self) -> None:
        """Refuse values out of range. With a stride of 1 the mask of transformers would be empty."""
        check_least(self, sampling_rate=2 * (LOWEST_FREQUENCY + 1), num_mel_bins=1, stride=2, feature_size=2)

    @property
    def width(self) -> int:
        """Features per stacked frame."""
        return self.num_mel_bins * self.stride

    def input_length(self, samples: int, name: str = "the clip") -> int:
        """Return the number of stacked frames that the attention mask keeps.

        Raises:
            AudioError: There are fewer than two analysis frames.
        """
        frames = frame_count(samples, self.sampling_rate, _LEAST_FRAMES, name)
        padded = frames + -frames % _PAD_TO_MULTIPLE_OF
        return len(range(1, min(frames, padded - padded % self.stride), self.stride))

    def check_level(self, samples: Samples, name: str) -> None:
        """Accept any level: the logarithm turns a factor into a constant offset."""

    def __call__(self, clips: Sequence[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Analyse, normalise, pad and stack clips.

        Args:
            clips: float32 [samples] each, at `sampling_rate`, full scale ±1.

        Returns:
            float32 [batch, time, num_mel_bins × stride], and the attention mask int64 [batch, time].

        Raises:
            AudioError: A clip has fewer than two analysis frames.
        """
        for i, clip in enumerate(clips):
            frame_count(clip.size, self.sampling_rate, _LEAST_FRAMES, f"clip {i}")
        normalized = [self._normalized(clip) for clip in clips]
        values, mask = self._stack(*pad(normalized, self.padding_value, _PAD_TO_MULTIPLE_OF))
        if not self.return_attention_mask:
            mask[:] = 1
        return values, mask

    def _normalized(self, clip: Samples) -> NDArray[np.float32]:
        """Return features with zero mean and unit variance in each mel band: float32 [frames, num_mel_bins]."""
        features = log_mel_filter_bank(clip * _INT16_SCALE, self.num_mel_bins, self.sampling_rate, "povey")
        normalized: NDArray[np.float32] = (features - features.mean(axis=0)) / np.sqrt(
            features.var(axis=0, ddof=1) + _VARIANCE_FLOOR
        )
        return normalized

    def _stack(
        self, features: NDArray[np.float32], mask: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Join `stride` frames to one, masked like the second of them; remaining frames are dropped."""
        batch, frames, bands = features.shape
        whole = frames - frames % self.stride
        stacked = features[:, :whole].reshape(batch, whole // self.stride, bands * self.stride)
        return stacked, mask[:, 1 : whole : self.stride]
