"""FLAC: a header that counts the samples, and frames (RFC 9639)."""

from ..sources import Source
from .damage import DamagedError, Extent
from .id3 import id3_bytes

_MARKER = b"fLaC"
_COUNT = 21
"""Where the 36 bits of the number of samples begin, in the lower half of a byte."""


def is_flac(source: Source) -> bool:
    """Whether a file is FLAC, with or without an ID3 tag in front."""
    return source.read_at(id3_bytes(source.read_at(0, 10)), len(_MARKER)) == _MARKER


def flac_extent(source: Source) -> Extent:
    """Number of samples by the header, and a header without it.

    A decoder stops at that number and does not look at what follows. One that does not know it goes on to the file's
    end, and fails at a frame that is cut, damaged, or of another file.

    Raises:
        DamagedError: the header is cut.
    """
    begin = id3_bytes(source.read_at(0, 10)) + _COUNT
    count = source.read_at(begin, 5)
    if len(count) < 5:
        raise DamagedError("is truncated in its header; copy it again")
    frames = int.from_bytes(count, "big") & 0xF_FFFF_FFFF
    return Extent(frames=frames, replaced=(begin, bytes([count[0] & 0xF0, 0, 0, 0, 0])))
