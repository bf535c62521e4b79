"""Limits of the inputs of TensorRT engines, in units that a user of the model knows."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from ..errors import EngineError


@dataclass(frozen=True)
class Range:
    """Smallest, usual and largest size of a dynamic dimension; kernels are chosen for the usual one."""

    smallest: int
    usual: int
    largest: int

    def holds(self, size: int) -> bool:
        """Return whether `size` is within the range."""
        return self.smallest <= size <= self.largest


@dataclass(frozen=True)
class ProfileLimits:
    """Smallest, usual and largest value of everything that varies between calls.

    Device memory is reserved for the largest values, and kernels are chosen for the usual ones.

    Attributes:
        batch: Utterances that are encoded or searched together.
        beams: Beams of each utterance; must start at 1, as every search does.
        seconds: Seconds of audio, clipped to the lengths that the encoder takes.
        tokens: Tokens of a sequence, the prompt included; must start at 1, as every search does.
        step_tokens: Tokens that one step takes; a longer prompt is decoded in pieces of the largest size.

    Raises:
        EngineError: Values are not such limits; all problems are listed.
    """

    batch: tuple[int, int, int] = (1, 1, 8)
    beams: tuple[int, int, int] = (1, 5, 5)
    seconds: tuple[float, float, float] = (0.05, 10.0, 30.0)
    tokens: tuple[int, int, int] = (1, 32, 256)
    step_tokens: tuple[int, int, int] = (1, 1, 4)

    def __post_init__(self) -> None:
        """Check all limits."""
        if problems := list(_problems(self)):
            raise EngineError(f"profile limits: {'; '.join(problems)}")


def _problems(limits: ProfileLimits) -> Iterator[str]:
    for field in fields(limits):
        value, name = getattr(limits, field.name), field.name
        kinds = (int, float) if name == "seconds" else (int,)
        if (
            not isinstance(value, tuple)
            or len(value) != 3
            or any(not isinstance(size, kinds) or isinstance(size, bool) for size in value)
        ):
            yield f"{name} is {value!r}; give (smallest, usual, largest), {field.default!r} for example"
        elif not 0 < value[0] <= value[1] <= value[2]:
            yield f"{name} is {value!r}; they must be positive and in ascending order"
        elif name in ("beams", "tokens", "step_tokens") and value[0] != 1:
            yield f"{name} is {value!r}; it must start at 1, as every search does"
