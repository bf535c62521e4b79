"""Mixing of channels to mono."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from .checks import Samples

_CANCELLED = 1e-4
"""Channels cancel each other out where the power of their mean is below this share of their mean power."""

_PIECE = 0.1
"""Length in seconds of the pieces that are checked one by one: shorter than a word."""

_AUDIBLE = 1e-3
"""Pieces below this share of the loudest piece's power are pauses, which may be lost."""


class Mixer:
    """Mixes blocks of audio to mono, and detects channels that cancel each other out."""

    def __init__(self, rate: float) -> None:
        """Start with audio of `rate` Hz."""
        self._rate = rate
        self._piece = max(1, int(rate * _PIECE))
        self._count = 0
        self._pieces: list[NDArray[np.float64]] = []

    def mix(self, block: NDArray[np.floating[Any]]) -> Samples:
        """Return the mean of the channels: [samples, channels] to float32 [samples]."""
        mean: Samples = block.mean(axis=1, dtype=np.float32)
        if block.shape[1] > 1:
            begins = np.arange(0, len(block), self._piece)
            power = np.add.reduceat(np.square(block, dtype=np.float64).mean(axis=1), begins)
            power_of_mean = np.add.reduceat(np.square(mean, dtype=np.float64), begins)
            self._pieces.append(np.stack([self._count + begins, power, power_of_mean]))
        self._count += len(block)
        return mean

    def check(self, channels: int, name: str) -> None:
        """Check that mixing has kept every audible part of all blocks so far.

        Raises:
            AudioError: The channels cancelled each other out somewhere.
        """
        if not self._pieces:
            return
        begins, power, power_of_mean = np.concatenate(self._pieces, axis=1)
        cancelled = (power_of_mean < _CANCELLED * power) & (power > _AUDIBLE * power.max())
        if cancelled.any():
            first = begins[cancelled][0] / self._rate
            raise AudioError(
                f"{name}: its {channels} channels cancel each other out when they are mixed (one is the other "
                f"inverted), first at {first:.1f} s; give one of them, for example with: "
                "ffmpeg -i FILE -af 'pan=mono|c0=c0' FILE.wav"
            )
