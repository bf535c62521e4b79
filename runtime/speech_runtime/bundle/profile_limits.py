"""How large the inputs of TensorRT engines may be, in words of who uses the model."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from ..errors import EngineError


@dataclass(frozen=True)
class Range:
    """Smallest, usual and largest size of a dynamic dimension; the usual one is the fastest."""

    smallest: int
    usual: int
    largest: int

    def holds(self, size: int) -> bool:
        """Whether `size` is within it."""
        return self.smallest <= size <= self.largest


@dataclass(frozen=True)
class ProfileLimits:
    """Smallest, usual and largest of everything that varies from one call to the next.

    Memory on the device is reserved for the largest, and kernels are chosen for the usual ones.

    Attributes:
        batch: utterances that are encoded or searched together.
        beams: of each utterance; begins at 1, every search does.
        seconds: of audio; what the encoder cannot take is left out.
        tokens: of a sequence, the prompt included; begins at 1, every search does.
        step_tokens: that one step takes; a longer prompt is decoded in pieces of the largest.

    Raises:
        EngineError: values that are no such limits; all of them are listed.
    """

    batch: tuple[int, int, int] = (1, 1, 8)
    beams: tuple[int, int, int] = (1, 5, 5)
    seconds: tuple[float, float, float] = (0.05, 10.0, 30.0)
    tokens: tuple[int, int, int] = (1, 32, 256)
    step_tokens: tuple[int, int, int] = (1, 1, 4)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
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
            yield f"{name} is {value!r}; they must be positive and grow"
        elif name in ("beams", "tokens", "step_tokens") and value[0] != 1:
            yield f"{name} is {value!r}; it begins at 1, as every search does"
