"""FLAC: a header with the number of samples, followed by frames (RFC 9639)."""

from ..sources import Source
from .extent import DamagedError, Extent, id3_bytes

_MARKER = b"fLaC"
_RATE = 18
"""Offset of the 20 bits of the sampling rate."""

_COUNT = 21
"""Offset of the 36 bits of the number of samples, which begin in the lower half of a byte."""

_RATES = (None, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
"""Sampling rates in Hz by the code in a frame's header; None for the rate in the file's header."""

_BITS = (None, 8, 12, None, 16, 20, 24, 32)
"""Bits per sample by the code in a frame's header; None for those in the file's header."""

_LONGEST_FRAME_HEADER = 16
"""Bytes. A file with fewer bytes after its own header has no audio."""


def is_flac(source: Source) -> bool:
    """Return whether a file is FLAC, with or without an ID3 tag in front."""
    return source.read_at(id3_bytes(source.read_at(0, 10)), len(_MARKER)) == _MARKER


def flac_extent(source: Source) -> Extent:
    """Return the number of samples in the header, and a replacement header without it.

    A decoder that knows the number stops there and ignores what follows. Without the number it decodes to the end of
    the file, and fails at a frame that is cut, damaged, or part of another file.

    Raises:
        DamagedError: The header is cut, or contradicts the first frame's sampling rate or sample size.
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
    """Return the position of the first frame, after all metadata blocks; each block begins with its size."""
    position = start + len(_MARKER)
    while len(header := source.read_at(position, 4)) == 4:
        position += 4 + int.from_bytes(header[1:], "big")
        if header[0] & 0x80:  # the last one
            break
    return position


def _rate_and_bits(header: bytes) -> tuple[int | None, int | None]:
    """Return the sampling rate in Hz and bits per sample in a frame header; None where they are not stated."""
    if len(header) < _LONGEST_FRAME_HEADER or header[0] != 0xFF or header[1] & 0xFE != 0xF8:
        return None, None
    block, code, bits = header[2] >> 4, header[2] & 0xF, _BITS[header[3] >> 1 & 7]
    if code < len(_RATES):
        return _RATES[code], bits
    # The frame number is coded like a UTF-8 character, whose leading ones count its bytes.
    ones = 8 - (header[4] ^ 0xFF).bit_length()
    at = 4 + max(1, ones) + {6: 1, 7: 2}.get(block, 0)
    two = int.from_bytes(header[at : at + 2], "big")
    return {12: header[at] * 1000, 13: two, 14: two * 10}.get(code), bits
