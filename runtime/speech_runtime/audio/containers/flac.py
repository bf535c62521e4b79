"""FLAC: a header that counts the samples, and frames (RFC 9639)."""

from ..sources import Source
from .damage import DamagedError, Extent
from .id3 import id3_bytes

_MARKER = b"fLaC"
_RATE = 18
"""Where the 20 bits of the sampling rate begin."""

_COUNT = 21
"""Where the 36 bits of the number of samples begin, in the lower half of a byte."""

_RATES = (None, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
"""By the code in a frame's header; None is the rate of the file's header."""

_BITS = (None, 8, 12, None, 16, 20, 24, 32)
"""Likewise, of a sample."""

_LONGEST_FRAME_HEADER = 16
"""Bytes; a file with fewer behind its own header has nothing to hear."""


def is_flac(source: Source) -> bool:
    """Whether a file is FLAC, with or without an ID3 tag in front."""
    return source.read_at(id3_bytes(source.read_at(0, 10)), len(_MARKER)) == _MARKER


def flac_extent(source: Source) -> Extent:
    """Number of samples by the header, and a header without it.

    A decoder stops at that number and does not look at what follows. One that does not know it goes on to the file's
    end, and fails at a frame that is cut, damaged, or of another file.

    Raises:
        DamagedError: the header is cut, or the first frame says another sampling rate or size of samples.
    """
    start = id3_bytes(source.read_at(0, 10))
    begin = start + _COUNT
    count = source.read_at(begin, 5)
    if len(count) < 5:
        raise DamagedError("is truncated in its header; copy it again")
    rate = int.from_bytes(source.read_at(start + _RATE, 3), "big") >> 4
    bits = (int.from_bytes(source.read_at(start + _RATE + 2, 2), "big") >> 4 & 0x1F) + 1
    frame = source.read_at(_first_frame(source, start), _LONGEST_FRAME_HEADER)
    own_rate, own_bits = _rate_and_bits(frame)
    if own_rate not in (None, rate) or own_bits not in (None, bits):
        raise DamagedError(
            f"is damaged: its header has {bits} bits at {rate:,} Hz, and its first frame {own_bits or bits} bits at "
            f"{own_rate or rate:,} Hz; copy it again"
        )
    frames = int.from_bytes(count, "big") & 0xF_FFFF_FFFF
    return Extent(frames=frames, replaced=(begin, bytes([count[0] & 0xF0, 0, 0, 0, 0])))


def _first_frame(source: Source, start: int) -> int:
    """Where the first frame begins: behind all blocks of metadata, each with its size in front."""
    position = start + len(_MARKER)
    while len(header := source.read_at(position, 4)) == 4:
        position += 4 + int.from_bytes(header[1:], "big")
        if header[0] & 0x80:  # the last one
            break
    return position


def _rate_and_bits(header: bytes) -> tuple[int | None, int | None]:
    """Sampling rate in Hz and bits of a sample by the header of a frame; None where it does not say, or is none."""
    if len(header) < _LONGEST_FRAME_HEADER or header[0] != 0xFF or header[1] & 0xFE != 0xF8:
        return None, None
    block, code, bits = header[2] >> 4, header[2] & 0xF, _BITS[header[3] >> 1 & 7]
    if code < len(_RATES):
        return _RATES[code], bits
    # The number of the frame is coded like a character of UTF-8, with as many ones in front as it has bytes.
    ones = 8 - (header[4] ^ 0xFF).bit_length()
    at = 4 + max(1, ones) + {6: 1, 7: 2}.get(block, 0)
    two = int.from_bytes(header[at : at + 2], "big")
    return {12: header[at] * 1000, 13: two, 14: two * 10}.get(code), bits
