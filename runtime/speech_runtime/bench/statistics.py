"""Many times of the same thing in a few numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Percentiles of times, seconds; of few times, p90 and p99 lie close to the longest.

    Attributes:
        p50: the median.
        p90: nine of ten are at most so long.
        p99: 99 of a hundred.
        count: how many times there are.
    """

    p50: float
    p90: float
    p99: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """Percentiles of `seconds`, one at least, interpolated linearly."""
        p50, p90, p99 = np.percentile(np.asarray(seconds, dtype=np.float64), (50, 90, 99))
        return cls(float(p50), float(p90), float(p99), len(seconds))
