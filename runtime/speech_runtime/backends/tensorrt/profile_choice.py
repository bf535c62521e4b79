"""Which profile a call fits into; where there is none, the limit that is in its way, and how to build with another."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from math import ceil
from pathlib import Path

from ...bundle.manifest import EngineSet
from ...bundle.profile_limits import ProfileLimits, Range
from ...errors import EngineError
from .profiles import Profile, Shape, widest

_LIMIT_OF = {
    "batch": "batch",
    "beams": "beams",
    "past_beams": "beams",
    "samples": "seconds",
    "frames": "seconds",
    "tokens": "step_tokens",
    "past": "tokens",
}


class ProfileChoice:
    """The profiles of one graph of a bundle in `directory`."""

    def __init__(self, graph: str, engines: EngineSet, shapes: Mapping[str, Shape], directory: Path) -> None:
        """Take the profiles of `graph` from `engines`; `shapes` name the dimensions of its inputs."""
        self._graph = graph
        self._engines = engines
        self._profiles: Sequence[Profile] = engines.profiles[graph]
        self._directory = directory
        self._axes = [
            (name, axis, size)
            for name, shape in shapes.items()
            for axis, size in enumerate(shape)
            if isinstance(size, str)
        ]

    def __call__(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """The index of the first profile that inputs of `shapes` fit into.

        Raises:
            EngineError: there is none; names the limits, and the command that builds engines with larger ones.
        """
        sizes = {dimension: shapes[name][axis] for name, axis, dimension in self._axes}
        for index, profile in enumerate(self._profiles):
            if all(profile[dimension].holds(size) for dimension, size in sizes.items()):
                return index
        raise EngineError(self._reason(sizes))

    def _reason(self, sizes: Mapping[str, int]) -> str:
        profile, limits = widest(tuple(self._profiles)), self._engines.limits
        said = []
        for dimension, size in sizes.items():
            held = profile[dimension]
            if not held.holds(size):
                said.append(f"{dimension} is {size:,}, they take {held.smallest:,} to {held.largest:,}")
                limits = _extended(limits, dimension, size, held)
        return (
            f"the engines of {self._graph} were not built for this: {'; '.join(said)}. Build them again for more: "
            f"speech-export {self._directory} --engines {' '.join(_flags(limits))}"
        )


def _extended(limits: ProfileLimits, dimension: str, size: int, held: Range) -> ProfileLimits:
    """The limits with room for `size`, which the range `held` of a dimension does not hold."""
    name = _LIMIT_OF[dimension]
    least, usual, most = getattr(limits, name)
    if name == "seconds":
        a_second = held.largest / most
        wanted: float = ceil(size / a_second) if size > held.largest else round(size / a_second, 3)
    else:
        wanted = size + 1 if name == "tokens" else size
    least, most = min(least, wanted), max(most, wanted)
    return replace(limits, **{name: (least, min(max(usual, least), most), most)})


def _flags(limits: ProfileLimits) -> Iterator[str]:
    for field in fields(limits):
        value = getattr(limits, field.name)
        if value != field.default:
            yield f"--trt-{field.name.replace('_', '-')} {' '.join(f'{size:g}' for size in value)}"
