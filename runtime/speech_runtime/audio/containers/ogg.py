"""Ogg: a sequence of pages with Vorbis, Opus, FLAC or Speex (RFC 3533)."""

import zlib

from ..sources import Source
from .extent import DamagedError, Extent, truncated, two_streams

_HEADER = 27
_LARGEST_HEADER = _HEADER + 255
_BEGIN, _END = 2, 4
_AUDIO = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_CHECKSUM = slice(22, 26)
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_extent(source: Source) -> Extent:
    """Check all pages: those of one audio stream are numbered without gaps, and the last one is marked.

    Their checksums are compared too, because a decoder silently skips a damaged page.

    Raises:
        DamagedError: Pages are missing or damaged, or there is more than one stream of audio.
    """
    position, following, serial, ended = 0, 0, None, False
    while position < source.size:
        page, segments = _page(source, position)
        flags, owner = page[5], page[14:18]
        if flags & _BEGIN and page.startswith(_AUDIO, _HEADER + segments):
            if serial is not None:
                raise two_streams()
            serial = owner
        if owner == serial:
            if int.from_bytes(page[18:22], "little") != following:
                raise DamagedError(f"is damaged: page {following:,} is missing at byte {position:,}; copy it again")
            following, ended = following + 1, bool(flags & _END)
        position += len(page)
    if not ended:
        raise DamagedError(
            "is truncated: its last page is missing; copy it again, or, if it was recorded like this, close it with: "
            "ffmpeg -i FILE -c copy whole.ogg"
        )
    return Extent()


def _page(source: Source, position: int) -> tuple[bytes, int]:
    """Return the page at a position and its number of segments."""
    header = source.read_at(position, _LARGEST_HEADER)
    segments = header[26] if len(header) >= _HEADER else 0
    size = _HEADER + segments + sum(header[_HEADER : _HEADER + segments])
    if len(header) < _HEADER + segments or position + size > source.size:
        raise truncated(source.size, max(position + size, source.size + 1), "bytes up to the end of its last page")
    page = source.read_at(position, size)
    if not page.startswith(b"OggS") or _crc(page) != int.from_bytes(page[_CHECKSUM], "little"):
        raise DamagedError(f"is damaged: expected a complete Ogg page at byte {position:,}; copy it again")
    return page, segments


def _crc(page: bytes) -> int:
    """Return the checksum of a page (RFC 3533, 6): zlib's CRC with the bits reversed and without inversion."""
    unsigned = page[: _CHECKSUM.start] + bytes(4) + page[_CHECKSUM.stop :]
    crc = zlib.crc32(unsigned.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
