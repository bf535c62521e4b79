"""Channels to one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from .checks import Samples

_CANCELLED = 1e-4
"""Channels cancel each other out where the power of their mean is below this share of their own."""

_PIECE = 0.1
"""Seconds that are looked at by themselves: shorter than a word."""

_HEARD = 1e-3
"""Pieces below this share of the loudest one's power are pauses: what is lost of them is no speech."""


class Mixer:
    """Mixes blocks of audio to mono, and notices channels that cancel each other out."""

    def __init__(self, rate: float) -> None:
        """Begin audio of `rate` Hz."""
        self._rate = rate
        self._piece = max(1, int(rate * _PIECE))
        self._count = 0
        self._pieces: list[NDArray[np.float64]] = []

    def mix(self, block: NDArray[np.floating[Any]]) -> Samples:
        """The mean of the channels: [samples, channels] to float32 [samples]."""
        mean: Samples = block.mean(axis=1, dtype=np.float32)
        if block.shape[1] > 1:
            begins = np.arange(0, len(block), self._piece)
            power = np.add.reduceat(np.square(block, dtype=np.float64).mean(axis=1), begins)
            power_of_mean = np.add.reduceat(np.square(mean, dtype=np.float64), begins)
            self._pieces.append(np.stack([self._count + begins, power, power_of_mean]))
        self._count += len(block)
        return mean

    def check(self, channels: int, name: str) -> None:
        """Check that something is left of every part of all blocks so far.

        Raises:
            AudioError: nearly nothing is.
        """
        if not self._pieces:
            return
        begins, power, power_of_mean = np.concatenate(self._pieces, axis=1)
        cancelled = (power_of_mean < _CANCELLED * power) & (power > _HEARD * power.max())
        if cancelled.any():
            first = begins[cancelled][0] / self._rate
            raise AudioError(
                f"{name}: its {channels} channels cancel each other out when they are mixed (one is the other upside "
                f"down), first at {first:.1f} s; give one of them, for example with: "
                "ffmpeg -i FILE -af 'pan=mono|c0=c0' FILE.wav"
            )
