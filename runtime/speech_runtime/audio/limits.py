"""Limits of one clip: length, size, channels, rate and waiting time."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Annotated

from ..dataclass_json import above, problems
from ..errors import AudioError

_Positive = Annotated[float, above(0)]


@dataclass(frozen=True)
class AudioLimits:
    """Limits of one clip. A clip that exceeds one is refused before it takes memory or time; the error names the limit.

    Attributes:
        max_seconds: Largest length of a clip in seconds.
        max_samples: Largest number of samples of a file, over all channels, at the file's own rate.
        max_channels: Largest number of channels of a file.
        min_rate: Lowest sampling rate in Hz. At rates far below speech, a short file becomes hours at the model's rate.
        max_rate: Highest sampling rate in Hz.
        max_bytes: Largest number of bytes from pipes, open files and bytes, which are read into memory before decoding.
            Files given by path are not.
        max_wait: Longest time in seconds until a pipe delivers its next bytes.
    """

    max_seconds: _Positive = 7200.0
    max_samples: _Positive = 2**29
    max_channels: _Positive = 32
    min_rate: _Positive = 1000.0
    max_rate: _Positive = 768_000.0
    max_bytes: _Positive = 2**30
    max_wait: _Positive = 60.0

    def __post_init__(self) -> None:
        """Check that all limits are positive numbers."""
        if found := problems(self):
            raise AudioError("; ".join(found))

    @classmethod
    def of(cls, limits: "AudioLimits | None") -> "AudioLimits":
        """Return `limits`, or the defaults for None.

        Raises:
            AudioError: It is neither.
        """
        if limits is not None and not isinstance(limits, cls):
            raise AudioError(f"limits is {limits!r}, it must be AudioLimits, for example AudioLimits(max_seconds=60)")
        return limits or cls()

    def check_rate(self, rate: object, name: str) -> None:
        """Check a sampling rate in Hz.

        Raises:
            AudioError: It is not a finite number, or exceeds the limits.
        """
        problem = f"{name}: has a sampling rate of {rate} Hz"
        hertz = float(rate) if isinstance(rate, Real) and not isinstance(rate, bool) else math.nan
        if not 0 < hertz < math.inf:
            raise AudioError(f"{problem}; {_TRUE_RATE}, a number above 0")
        if hertz < self.min_rate:
            raise AudioError(
                f"{problem}, the least is {self.min_rate:,g} Hz; {_TRUE_RATE}, or lower {flag('min_rate')}"
            )
        if hertz > self.max_rate:
            self._refuse("max_rate", problem, f"{self.max_rate:,g} Hz", _TRUE_RATE)

    def check_size(self, frames: int, channels: int, rate: float, name: str) -> None:
        """Check the number of samples per channel (`frames`) and of channels, at a rate that was checked before.

        Raises:
            AudioError: They exceed a limit, which is named.
        """
        if channels > self.max_channels:
            remedy = "give the channel with the speech"
            self._refuse("max_channels", f"{name}: has {channels} channels", f"{self.max_channels}", remedy)
        if frames > self.max_seconds * rate:
            self._refuse("max_seconds", f"{name}: lasts {frames / rate:,.1f} s", f"{self.max_seconds:,g} s", _SPLIT)
        if frames * channels > self.max_samples:
            self._refuse("max_samples", f"{name}: has {frames * channels:,} samples", f"{self.max_samples:,}", _SPLIT)

    def check_bytes(self, count: int, name: str) -> None:
        """Check the number of bytes that were read from a pipe or an open file so far.

        Raises:
            AudioError: They exceed the limit.
        """
        if count > self.max_bytes:
            self._refuse("max_bytes", f"{name}: has more bytes", f"{self.max_bytes:,}", "save it, and give its path")

    def _refuse(self, limit: str, problem: str, most: str, remedy: str) -> None:
        raise AudioError(f"{problem}, the limit is {most}; {remedy}, or raise {flag(limit)}")


_SPLIT = "split it into shorter pieces"
_TRUE_RATE = "give the rate that it was recorded at"


def flag(limit: str) -> str:
    """Return how to set a limit: the argument, and the flag of the command."""
    return f"AudioLimits({limit}=…) (--{flag_name(limit)})"


def flag_name(limit: str) -> str:
    """Return the command's flag for a limit without its dashes: `max-audio-seconds` for `max_seconds`."""
    bound, quantity = limit.split("_")
    return f"{bound}-audio-{quantity}"
