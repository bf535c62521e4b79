"""Waveforms as model input: wav2vec 2.0, HuBERT, WavLM, UniSpeech, data2vec, SEW."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import Samples
from .shared import check_full_scale, check_least, check_loudness, check_spikes, pad


@dataclass(frozen=True)
class WaveformExtractor:
    """Equal to transformers' `Wav2Vec2FeatureExtractor` with `padding=True`.

    Attributes:
        sampling_rate: Sampling rate in Hz.
        padding_value: Value after the end of a clip.
        return_attention_mask: If true, the encoder was trained with a mask.
        do_normalize: If true, each clip is normalised to zero mean and unit variance.
        padding_side: Side of the padding; always the end.
        feature_size: Number of channels; always 1.
    """

    sampling_rate: int = 16000
    padding_value: float = 0.0
    return_attention_mask: bool = False
    do_normalize: bool = True
    padding_side: Literal["right"] = "right"
    feature_size: Literal[1] = 1

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_least(self, sampling_rate=1)

    @property
    def width(self) -> None:
        """None, because samples have no width."""

    def input_length(self, samples: int, name: str = "the clip") -> int:  # noqa: ARG002  # every length is valid
        """Return the number of samples."""
        return samples

    def check_level(self, samples: Samples, name: str) -> None:
        """Check that a clip is not too quiet, and that no spikes or another scale spoil what the encoder receives.

        Raises:
            AudioError: It is, or they do.
        """
        check_loudness(samples, name)
        check_spikes(samples, name)
        if not self.do_normalize:
            check_full_scale(samples, name)

    def __call__(self, clips: Sequence[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Pad clips to the longest of them and normalise them.

        Args:
            clips: float32 [samples] each, at `sampling_rate`.

        Returns:
            float32 [batch, samples], and the attention mask int64 [batch, samples]: all ones if the checkpoint was
            trained without a mask (padding is then part of the signal, as in transformers).
        """
        values, mask = pad(clips, self.padding_value)
        if not self.return_attention_mask:
            mask[:] = 1
        if self.do_normalize:
            for row, length in zip(values, mask.sum(axis=1), strict=True):
                row[:length] = (row[:length] - row[:length].mean()) / np.sqrt(row[:length].var() + 1e-7)
        return values, mask
