"""Channels to one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from .checks import Samples

_CANCELLED = 1e-4
"""Channels cancel each other out where the power of their mean is below this share of their own."""


class Mixer:
    """Mixes blocks of audio to mono, and notices channels that cancel each other out."""

    def __init__(self) -> None:
        self._power = self._power_of_mean = 0.0

    def mix(self, block: NDArray[np.floating[Any]]) -> Samples:
        """The mean of the channels: [samples, channels] to float32 [samples]."""
        mean: Samples = block.mean(axis=1, dtype=np.float32)
        if block.shape[1] > 1:
            self._power += float(np.square(block, dtype=np.float64).mean(axis=1).sum())
            self._power_of_mean += float(np.square(mean, dtype=np.float64).sum())
        return mean

    def check(self, channels: int, name: str) -> None:
        """Check that something is left of all blocks so far.

        Raises:
            AudioError: nearly nothing is.
        """
        if self._power_of_mean < _CANCELLED * self._power:
            raise AudioError(
                f"{name}: its {channels} channels cancel each other out when they are mixed (one is the other upside "
                "down); give one of them, for example with: ffmpeg -i FILE -af 'pan=mono|c0=c0' FILE.wav"
            )
