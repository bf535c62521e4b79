"""Containers of uncompressed audio: WAV, RF64, Wave64, AIFF, IFF and CAF, which consist of chunks; AU and NIST SPHERE.

All of them declare how many bytes of audio there are.
"""

import re
from dataclasses import dataclass
from typing import Literal

from ..sources import Source
from .extent import CONVERT, DamagedError, Extent, check_rest, check_span, truncated, two_streams

_STREAMED_SIZES = (range(0x7FFFF000, 0x80000001), range(0xFFFFF000, 0x100000000), range(2**63 - 2**12, 2**64))
"""Sizes near the maximum of 31, 32, 63 or 64 bits: programs that write to a pipe declare them, not knowing the size."""

_OTHER_FILES = {b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"caff", b"OggS", b"fLaC"}
"""Names that look like a chunk but begin a second file."""

_ID = 4
"""Characters of a chunk's name; the 16 bytes of a Wave64 name begin with them."""
_FORMAT_BYTES = 26
"""Bytes of the format chunk that are read: up to the format in the extension of an extensible one."""

_EXTENSIBLE = 0xFFFE
_LINEAR = {1: "PCM", 3: "floating-point"}
_COMPANDED = {6: "A-law", 7: "mu-law"}
_UNKNOWN_SIZE = 0xFFFFFFFF
_AU_SAMPLE_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
"""Bytes of a sample, by the encoding that the header of an AU file names; others are compressed."""
_SPHERE_HEADER = re.compile(rb"NIST_1A\s+(\d+)\s")
# Numbers are integers (-i), or strings with their length (-s1), as libsndfile writes some of them.
_SPHERE_FIELD = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -(?:i|s\d+) (\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Layout:
    """Layout of the chunks in a container.

    Attributes:
        order: Byte order of sizes.
        begin: Position of the first chunk.
        audio: Name of the chunk with the audio.
        name_bytes: Bytes of a chunk's name.
        size_bytes: Bytes of a chunk's size.
        alignment: Alignment of chunks in bytes.
        prefix: Bytes before the audio in its chunk.
        counts_itself: If true, a chunk's size includes its name and size.
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
        """Bytes of a chunk's name and size together."""
        return self.name_bytes + self.size_bytes


RIFF = Layout("little", 12, b"data")
RIFX = Layout("big", 12, b"data")
AIFF = Layout("big", 12, b"SSND", prefix=8)
SVX = Layout("big", 12, b"BODY")
WAVE64 = Layout("little", 40, b"data", name_bytes=16, size_bytes=8, alignment=8, counts_itself=True)
CAF = Layout("big", 8, b"data", size_bytes=8, alignment=1, prefix=4)


def chunk_extent(source: Source, layout: Layout) -> Extent:
    """Return the extent of the audio by the headers of all chunks.

    Raises:
        DamagedError: The format chunk contradicts itself, the audio is not complete, there is more than one audio
            chunk, or something follows that is not a chunk.
    """
    position, audio, large, frames = layout.begin, None, 0, 0
    while position < source.size:
        header = source.read_at(position, layout.header)
        name, begin = header[:_ID], position + layout.header
        if not _is_header(header, layout) or name in _OTHER_FILES:
            break
        length = int.from_bytes(header[layout.name_bytes :], layout.order)
        length -= layout.header if layout.counts_itself else 0
        if length < 0:  # the next chunk would be this one, or one before it
            raise DamagedError(
                f"is damaged: its chunk {name.decode('ascii')!r} is smaller than the header of the chunk; copy it again"
            )
        if name == b"fmt ":
            _check_format(source.read_at(begin, min(length, _FORMAT_BYTES)), layout.order)
        elif name == b"ds64":
            large = int.from_bytes(source.read_at(begin + 8, 8), "little")
        elif name == b"pakt" and layout is CAF:
            frames = max(0, int.from_bytes(source.read_at(begin + 8, 8), layout.order, signed=True))
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
    return Extent(audio, frames)


def _streamed(source: Source, position: int, layout: Layout) -> Extent:
    """Return the audio from the chunk at `position` to the end of the file.

    A size of 64 bits is replaced by the real one, which libsndfile needs.
    """
    begin = position + layout.header
    if layout.size_bytes == 4:
        return Extent(source.size - begin - layout.prefix)
    size = source.size - (position if layout.counts_itself else begin)
    sized = (position + layout.name_bytes, size.to_bytes(layout.size_bytes, layout.order))
    return Extent(source.size - begin - layout.prefix, replaced=sized)


def _next(source: Source, end: int, layout: Layout) -> int:
    """Return the position of the next chunk. Some writers leave out the padding before it."""
    aligned = end + -end % layout.alignment
    return end if end < aligned and _is_header(source.read_at(end, layout.header), layout) else aligned


def _is_header(header: bytes, layout: Layout) -> bool:
    name = header[:_ID]
    return len(header) == layout.header and all(0x20 <= character < 0x7F for character in name)


def _check_format(content: bytes, order: Literal["little", "big"]) -> None:
    """Check that the fields of a WAV or Wave64 format chunk agree: a frame must have the size of its samples.

    libsndfile relies on the bits per sample, and decodes noise where they are wrong.

    Raises:
        DamagedError: They contradict each other; the message names them.
    """
    if len(content) < 16:
        return
    tag, channels, align, bits = (int.from_bytes(content[i : i + 2], order) for i in (0, 2, 12, 14))
    if tag == _EXTENSIBLE and len(content) == _FORMAT_BYTES:
        tag = int.from_bytes(content[24:26], order)
    kind = _LINEAR.get(tag) or _COMPANDED.get(tag)
    if kind is None:
        return
    sample_bytes = -(-bits // 8)
    if tag in _COMPANDED and bits != 8:
        problem = f"{kind} of {bits} bits instead of 8"
    elif align != channels * sample_bytes:
        problem = f"{kind} of {channels} × {bits} bits in frames of {align} bytes (block align)"
    else:
        return
    raise DamagedError(
        f"has a header that contradicts itself: {problem}; convert it again from its original, for example with: "
        f"{CONVERT}"
    )


def au_extent(source: Source, order: Literal["little", "big"]) -> Extent:
    """Return the extent of the audio in an AU file (Sun, NeXT).

    Raises:
        DamagedError: The audio is not complete, or more data follows.
    """
    header = source.read_at(4, 20)
    begin, length = (int.from_bytes(header[i : i + 4], order) for i in (0, 4))
    if length == _UNKNOWN_SIZE:
        return Extent(max(0, source.size - begin))
    check_span(source, begin, length)
    encoding, _, channels = (int.from_bytes(header[i : i + 4], order) for i in (8, 12, 16))
    frame = channels * _AU_SAMPLE_BYTES.get(encoding, 0)
    if frame and length % frame:
        raise DamagedError(
            f"has a header that contradicts itself: {length:,} bytes of audio are no whole number of frames of "
            f"{frame:,} bytes ({channels:,} channels); copy it again"
        )
    return Extent(length)


def sphere_extent(source: Source) -> Extent:
    """Return the extent of the audio in a NIST SPHERE file.

    Raises:
        DamagedError: The audio is not complete, more data follows, or the header has no sample count.
    """
    start = _SPHERE_HEADER.match(source.read_at(0, 32))
    begin = min(int(start[1]) if start else 0, source.size)
    fields = {bytes(name): int(value) for name, value in _SPHERE_FIELD.findall(source.read_at(0, begin))}
    if b"sample_count" not in fields:
        raise DamagedError("has no number of samples (sample_count) in its header")
    length = fields[b"sample_count"] * fields.get(b"channel_count", 1) * fields.get(b"sample_n_bytes", 2)
    check_span(source, begin, length)
    return Extent(length)
