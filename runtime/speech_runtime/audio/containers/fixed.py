"""Containers with one header of fixed fields and the audio behind it: AU and NIST SPHERE."""

import re
from typing import Literal

from ..sources import Source
from .damage import DamagedError, Extent, check_span

_UNKNOWN_SIZE = 0xFFFFFFFF
_SPHERE_HEADER = re.compile(rb"NIST_1A\s+(\d+)\s")
# Numbers are integers (-i), or strings of so many characters (-s1), as libsndfile writes some of them.
_SPHERE_FIELD = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -(?:i|s\d+) (\d+)\s*$", re.MULTILINE)


def au_extent(source: Source, order: Literal["little", "big"]) -> Extent:
    """Size of the audio in a Sun or NeXT file.

    Raises:
        DamagedError: it is not all there, or more is.
    """
    header = source.read_at(4, 8)
    begin, length = (int.from_bytes(header[i : i + 4], order) for i in (0, 4))
    if length == _UNKNOWN_SIZE:
        return Extent(max(0, source.size - begin))
    check_span(source, begin, length)
    return Extent(length)


def sphere_extent(source: Source) -> Extent:
    """Size of the audio in a NIST SPHERE file.

    Raises:
        DamagedError: it is not all there, or more is; or the header does not say.
    """
    start = _SPHERE_HEADER.match(source.read_at(0, 32))
    begin = min(int(start[1]) if start else 0, source.size)
    fields = {bytes(name): int(value) for name, value in _SPHERE_FIELD.findall(source.read_at(0, begin))}
    if b"sample_count" not in fields:
        raise DamagedError("does not say in its header how many samples it has (sample_count)")
    length = fields[b"sample_count"] * fields.get(b"channel_count", 1) * fields.get(b"sample_n_bytes", 2)
    check_span(source, begin, length)
    return Extent(length)
