"""Containers of chunks, each with its size in front: WAV, RF64, Wave64, AIFF, IFF and CAF."""

from dataclasses import dataclass
from typing import Literal

from ..sources import Source
from .damage import DamagedError, Extent, check_rest, truncated, two_streams
from .wave_format import FORMAT_BYTES, check_format

_STREAMED_SIZES = (range(0x7FFFF000, 0x80000001), range(0xFFFFF000, 0x100000000), range(2**63 - 2**12, 2**64))
"""Who writes to a pipe does not know the size, and declares about the largest of 31, 32, 63 or 64 bits."""

_OTHER_FILES = {b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"caff", b"OggS", b"fLaC"}
"""What looks like a chunk, and is the beginning of a second file."""

_ID = 4
"""Characters of a chunk's name; the 16 bytes of a Wave64 one begin with them."""


@dataclass(frozen=True)
class Layout:
    """How chunks are stored.

    Attributes:
        order: of the bytes of a size.
        begin: where the first chunk begins.
        name_bytes: of a chunk.
        size_bytes: of its size.
        alignment: of the chunks' begins.
        audio: name of the chunk that has the audio.
        prefix: bytes in front of the audio in its chunk.
        counts_itself: whether a size counts name and size, too.
    """

    order: Literal["little", "big"]
    begin: int
    audio: bytes
    name_bytes: int = _ID
    size_bytes: int = 4
    alignment: int = 2
    prefix: int = 0
    counts_itself: bool = False

    @property
    def header(self) -> int:
        """Bytes of a chunk's name and size."""
        return self.name_bytes + self.size_bytes


RIFF = Layout("little", 12, b"data")
RIFX = Layout("big", 12, b"data")
AIFF = Layout("big", 12, b"SSND", prefix=8)
SVX = Layout("big", 12, b"BODY")
WAVE64 = Layout("little", 40, b"data", name_bytes=16, size_bytes=8, alignment=8, counts_itself=True)
CAF = Layout("big", 8, b"data", size_bytes=8, alignment=1, prefix=4)


def chunk_extent(source: Source, layout: Layout) -> Extent:
    """Walk over the chunks of a file: over their headers, not over what is in them.

    Raises:
        DamagedError: its header contradicts itself, the audio is not all there, there is more than one, or something
            follows that is no chunk.
    """
    position, audio, large = layout.begin, None, 0
    while position < source.size:
        header = source.read_at(position, layout.header)
        name, begin = header[:_ID], position + layout.header
        if not _is_header(header, layout) or name in _OTHER_FILES:
            break
        length = int.from_bytes(header[layout.name_bytes :], layout.order)
        length -= layout.header if layout.counts_itself else 0
        if name == b"fmt ":
            check_format(source.read_at(begin, min(length, FORMAT_BYTES)), layout.order)
        elif name == b"ds64":
            large = int.from_bytes(source.read_at(begin + 8, 8), "little")
        elif name == layout.audio:
            if audio is not None:
                raise two_streams()
            if large and length == 0xFFFFFFFF:
                length = large
            if any(length in sizes for sizes in _STREAMED_SIZES):
                return _streamed(source, position, layout)
            audio = length - layout.prefix
            if begin + length > source.size:
                raise truncated(max(0, source.size - begin - layout.prefix), audio)
        elif begin + length > source.size:
            break
        position = _next(source, begin + length, layout)
    if audio is None:
        raise DamagedError("cannot be read as audio: it is damaged, or has no chunk of samples; copy it again")
    if position < source.size:
        check_rest(source, position, audio)
    return Extent(audio)


def _streamed(source: Source, position: int, layout: Layout) -> Extent:
    """The audio from the chunk at `position` to the file's end; where its size has 64 bits, libsndfile must be told."""
    begin = position + layout.header
    if layout.size_bytes == 4:
        return Extent(source.size - begin - layout.prefix)
    size = source.size - (position if layout.counts_itself else begin)
    sized = (position + layout.name_bytes, size.to_bytes(layout.size_bytes, layout.order))
    return Extent(source.size - begin - layout.prefix, replaced=sized)


def _next(source: Source, end: int, layout: Layout) -> int:
    """Where the next chunk begins: what comes in between is left out by some writers."""
    aligned = end + -end % layout.alignment
    return end if end < aligned and _is_header(source.read_at(end, layout.header), layout) else aligned


def _is_header(header: bytes, layout: Layout) -> bool:
    name = header[:_ID]
    return len(header) == layout.header and all(0x20 <= character < 0x7F for character in name)
