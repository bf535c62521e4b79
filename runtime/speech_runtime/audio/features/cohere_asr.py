"""Log-mel spectrograms of NeMo, with dither that depends on nothing but the clip's length: Cohere ASR."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import Samples
from .parakeet import ParakeetExtractor
from .shared import check_least, check_longest
from .torch_random import LEAST_NUMBERS, standard_normal


@dataclass(frozen=True)
class CohereAsrExtractor(ParakeetExtractor):
    """Equal to transformers' `CohereAsrFeatureExtractor` called with `padding=True`, but for audio that is too long.

    transformers splits a clip above `max_audio_clip_s` at quiet places. Here that is an error, as for all models.

    Attributes:
        dither: Deviation of the noise that is added to each clip. Its seed is the number of samples; none up to 0.
        max_audio_clip_s: Length of the longest clip in seconds.
    """

    feature_size: int = 128
    dither: float = 1e-5
    max_audio_clip_s: float = 35.0

    def __post_init__(self) -> None:
        """Refuse values out of range; with a shorter hop, torch draws the noise of the shortest clip in another way."""
        super().__post_init__()
        check_least(self, hop_length=LEAST_NUMBERS // 2, max_audio_clip_s=2 * self.hop_length / self.sampling_rate)

    def input_length(self, samples: int, name: str = "the clip") -> int:
        """Return the number of frames that the attention mask keeps.

        Raises:
            AudioError: There are fewer than two, or the clip is longer than `max_audio_clip_s`.
        """
        check_longest(samples, round(self.max_audio_clip_s * self.sampling_rate), self.sampling_rate, name)
        return super().input_length(samples, name)

    def __call__(self, clips: Sequence[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Dither, analyse, normalise and pad clips: see `ParakeetExtractor`."""
        if self.dither <= 0:
            return super().__call__(clips)
        return super().__call__([clip + self.dither * standard_normal(clip.size, seed=clip.size) for clip in clips])
