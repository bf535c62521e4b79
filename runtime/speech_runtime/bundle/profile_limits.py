"""Sizes that TensorRT engines are built for, in the units of the model's user: seconds, beams, tokens."""

from dataclasses import dataclass
from typing import Annotated

from ..dataclass_json import Rule, problems
from ..errors import EngineError


@dataclass(frozen=True)
class Range:
    """Smallest, usual and largest size of a dynamic dimension; the usual one runs fastest."""

    smallest: int
    usual: int
    largest: int

    def holds(self, size: int) -> bool:
        """Return true if `size` is within the range."""
        return self.smallest <= size <= self.largest


def _grows(sizes: tuple[float, float, float]) -> bool:
    return 0 < sizes[0] <= sizes[1] <= sizes[2]


def _grows_from_1(sizes: tuple[float, float, float]) -> bool:
    return _grows(sizes) and sizes[0] == 1


_WORDS = "(smallest, usual, largest), positive and in ascending order,"
_Sizes = Annotated[tuple[int, int, int], Rule(_grows, f"{_WORDS} (1, 1, 8) for example")]
_Seconds = Annotated[tuple[float, float, float], Rule(_grows, f"{_WORDS} (0.05, 10, 30) for example")]
_SizesFrom1 = Annotated[
    tuple[int, int, int], Rule(_grows_from_1, f"{_WORDS} (1, 5, 5) for example: every search starts at 1")
]


@dataclass(frozen=True)
class ProfileLimits:
    """Smallest, usual and largest of every size that varies between calls.

    Memory on the device is reserved for the largest sizes, and kernels are chosen for the usual ones.

    Attributes:
        batch: Number of utterances that are encoded or searched together.
        beams: Number of beams of each utterance; begins at 1, since the first step has one beam.
        seconds: Seconds of audio; lengths that the encoder cannot take are left out.
        tokens: Length of a sequence in tokens, the prompt included; begins at 1.
        step_tokens: Number of tokens of one step; a longer prompt is decoded in pieces of the largest size.

    Raises:
        EngineError: Sizes are not positive, not in order, or do not begin at 1; all of them are listed.
    """

    batch: _Sizes = (1, 1, 8)
    beams: _SizesFrom1 = (1, 5, 5)
    seconds: _Seconds = (0.05, 10.0, 30.0)
    tokens: _SizesFrom1 = (1, 32, 256)
    step_tokens: _SizesFrom1 = (1, 1, 4)

    def __post_init__(self) -> None:
        """Check all sizes."""
        if found := problems(self):
            raise EngineError(f"profile limits: {'; '.join(found)}")
