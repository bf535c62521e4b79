"""Log-mel features in pairs of frames: Wav2Vec2-BERT and the speech encoders of SeamlessM4T."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import Samples
from .filter_bank import LOWEST_FREQUENCY, frame_count, log_mel_filter_bank
from .padding import pad
from .ranges import check_least

_INT16_SCALE = 2**15
_VARIANCE_FLOOR = 1e-7
_PAD_TO_MULTIPLE_OF = 2
_LEAST_FRAMES = 2
"""The variance of a single frame is not defined."""


@dataclass(frozen=True)
class SeamlessExtractor:
    """Equal to transformers' `SeamlessM4TFeatureExtractor` called with `padding=True`.

    Attributes:
        sampling_rate: Hz.
        num_mel_bins: of one analysis frame.
        padding_value: after the end of a clip, not normalised.
        stride: analysis frames that are stacked into one of the encoder's.
        return_attention_mask: whether the encoder was trained with a mask.
        padding_side: at the end, always.
        feature_size: transformers only asks whether it is above 1.
    """

    sampling_rate: int = 16000
    num_mel_bins: int = 80
    padding_value: float = 0.0
    stride: int = 2
    return_attention_mask: bool = True
    padding_side: Literal["right"] = "right"
    feature_size: int = 80

    def __post_init__(self) -> None:
        """Refuse values that are out of range; with a stride of 1 the mask of transformers would be empty."""
        check_least(self, sampling_rate=2 * (LOWEST_FREQUENCY + 1), num_mel_bins=1, stride=2, feature_size=2)

    @property
    def width(self) -> int:
        """Features of a stacked frame."""
        return self.num_mel_bins * self.stride

    def input_length(self, samples: int, name: str = "the clip") -> int:
        """Stacked frames that the attention mask keeps.

        Raises:
            AudioError: fewer than two analysis frames.
        """
        frames = frame_count(samples, self.sampling_rate, _LEAST_FRAMES, name)
        padded = frames + -frames % _PAD_TO_MULTIPLE_OF
        return len(range(1, min(frames, padded - padded % self.stride), self.stride))

    def check_level(self, samples: Samples, name: str) -> None:
        """Any level will do: logarithms make a shift of it."""

    def __call__(self, clips: Sequence[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Analyse, normalise, pad and stack clips.

        Args:
            clips: float32 [samples] each, at `sampling_rate`, full scale ±1.

        Returns:
            float32 [batch, time, num_mel_bins × stride], and the attention mask int64 [batch, time].

        Raises:
            AudioError: a clip has fewer than two analysis frames.
        """
        for i, clip in enumerate(clips):
            frame_count(clip.size, self.sampling_rate, _LEAST_FRAMES, f"clip {i}")
        normalized = [self._normalized(clip) for clip in clips]
        values, mask = self._stack(*pad(normalized, self.padding_value, _PAD_TO_MULTIPLE_OF))
        if not self.return_attention_mask:
            mask[:] = 1
        return values, mask

    def _normalized(self, clip: Samples) -> NDArray[np.float32]:
        """Each mel band to zero mean and unit variance over time: float32 [frames, num_mel_bins]."""
        features = log_mel_filter_bank(clip * _INT16_SCALE, self.num_mel_bins, self.sampling_rate, "povey")
        normalized: NDArray[np.float32] = (features - features.mean(axis=0)) / np.sqrt(
            features.var(axis=0, ddof=1) + _VARIANCE_FLOOR
        )
        return normalized

    def _stack(
        self, features: NDArray[np.float32], mask: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Join `stride` frames to one; it counts where the second of them does, and a rest is dropped."""
        batch, frames, bands = features.shape
        whole = frames - frames % self.stride
        stacked = features[:, :whole].reshape(batch, whole // self.stride, bands * self.stride)
        return stacked, mask[:, 1 : whole : self.stride]
