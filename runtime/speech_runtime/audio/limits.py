"""Budgets: how much audio one clip may ask for."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Annotated

from ..dataclass_json import above, problems
from ..errors import AudioError

_Positive = Annotated[float, above(0)]


@dataclass(frozen=True)
class AudioLimits:
    """The most that one clip may ask for. A clip beyond them is refused by name, before it takes memory or time.

    Attributes:
        max_seconds: length of a clip.
        max_samples: samples of a file, those of all channels together, at the file's own rate.
        max_channels: channels of a file.
        min_rate: sampling rate, Hz; far below speech, a short file becomes hours at the model's rate.
        max_rate: sampling rate, Hz.
        max_bytes: size of audio that is read into memory before it is decoded: pipes, open files and bytes. A file that
            is given by its path is not.
        max_wait: seconds until the next bytes come out of a pipe.
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
        """`limits`, or those that hold where there are none.

        Raises:
            AudioError: it is something else.
        """
        if limits is not None and not isinstance(limits, cls):
            raise AudioError(f"limits is {limits!r}, it must be AudioLimits, for example AudioLimits(max_seconds=60)")
        return limits or cls()

    def check_rate(self, rate: object, name: str) -> None:
        """Check a sampling rate in Hz.

        Raises:
            AudioError: it is no number, not finite, or out of the limits.
        """
        what = f"{name}: has a sampling rate of {rate} Hz"
        hertz = float(rate) if isinstance(rate, Real) and not isinstance(rate, bool) else math.nan
        if not 0 < hertz < math.inf:
            raise AudioError(f"{what}; {_TRUE_RATE}, a number above 0")
        if hertz < self.min_rate:
            raise AudioError(f"{what}, the least is {self.min_rate:,g} Hz; {_TRUE_RATE}, or lower {flag('min_rate')}")
        if hertz > self.max_rate:
            self._refuse("max_rate", what, f"{self.max_rate:,g} Hz", _TRUE_RATE)

    def check_size(self, frames: int, channels: int, rate: float, name: str) -> None:
        """Check so many samples a channel, at a rate that is checked.

        Raises:
            AudioError: names the limit that they are beyond.
        """
        if channels > self.max_channels:
            remedy = "give the channel that has the speech"
            self._refuse("max_channels", f"{name}: has {channels} channels", f"{self.max_channels}", remedy)
        if frames > self.max_seconds * rate:
            self._refuse("max_seconds", f"{name}: lasts {frames / rate:,.1f} s", f"{self.max_seconds:,g} s", _SPLIT)
        if frames * channels > self.max_samples:
            self._refuse("max_samples", f"{name}: has {frames * channels:,} samples", f"{self.max_samples:,}", _SPLIT)

    def check_bytes(self, count: int, name: str) -> None:
        """Check so many bytes that came out of a pipe or an open file so far.

        Raises:
            AudioError: they are too many.
        """
        if count > self.max_bytes:
            self._refuse("max_bytes", f"{name}: has more bytes", f"{self.max_bytes:,}", "save it, and give its path")

    def _refuse(self, limit: str, what: str, most: str, remedy: str) -> None:
        raise AudioError(f"{what}, the limit is {most}; {remedy}, or raise {flag(limit)}")


_SPLIT = "split it into shorter pieces"
_TRUE_RATE = "give the rate that it was recorded at"


def flag(limit: str) -> str:
    """What to set for another limit: the argument, and the flag of the command."""
    return f"AudioLimits({limit}=…) (--{flag_name(limit)})"


def flag_name(limit: str) -> str:
    """Name of the command's flag for a limit, without its dashes: `max-audio-seconds` of `max_seconds`."""
    bound, quantity = limit.split("_")
    return f"{bound}-audio-{quantity}"
