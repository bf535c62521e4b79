"""MP3: a sequence of frames and tags; the first frame may count the others (Xing, Info or VBRI)."""

from dataclasses import dataclass
from functools import lru_cache

from ..sources import Source
from .extent import DamagedError, Extent, id3_bytes, truncated

_AT_ONCE = 2**20
"""Number of bytes to read at a time."""
_NEEDED = 64
"""Bytes that identify a frame or a tag."""

_BITRATES = {  # kbit/s, by whether it is MPEG 1, and by layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)
_MPEG_1, _MPEG_2, _RESERVED = 3, 2, 1
_LOST_AT_START = 1
"""Frames that a decoder may skip where a file begins in the middle of a recording."""

_DECODER_DELAY = 529
"""Samples that a decoder removes at the end, in addition to the encoder's own delay, where the delay is stated."""


@dataclass(frozen=True)
class _Frame:
    length: int
    samples: int


def mpeg_extent(source: Source) -> Extent:
    """Check the headers of all frames.

    Raises:
        DamagedError: The last frame is cut, the number of frames differs from the declared one, or there are bytes
            that belong to no frame or tag.
    """
    position, start, base, window, count, first = 0, 0, 0, b"", 0, None
    while position < source.size:
        if position + _NEEDED > base + len(window):
            base, window = position, source.read_at(position, _AT_ONCE)
        head = window[position - base : position - base + _NEEDED]
        frame = _frame(head[1], head[2]) if len(head) > 3 and head[0] == 0xFF else None
        if frame:
            if position + frame.length > source.size:
                raise truncated(source.size - position, frame.length, "bytes of its last frame")
            if first is None:
                first, start = frame, position
            count, position = count + 1, position + frame.length
        elif skipped := _tag_bytes(head, source.size - position):
            position += skipped
        else:
            raise DamagedError(
                f"is damaged: expected an MP3 frame at byte {position:,}; copy it again, or repair it with: "
                "ffmpeg -i FILE whole.wav"
            )
    if first is None:
        raise DamagedError("is truncated: it ends before its first frame; copy it again")
    declared = _declared(source.read_at(start, first.length))
    if declared is None:
        return Extent(frames=max(0, count - _LOST_AT_START) * first.samples, counted=False)
    if count - 1 < declared:
        raise truncated(count - 1, declared, "frames")
    if count - 1 > declared:
        raise DamagedError(
            f"has {count - 1:,} frames, but declares {declared:,}: it was joined from two files; split it"
        )
    return Extent(frames=max(0, declared * first.samples - _trimmed(source.read_at(start, first.length))))


@lru_cache(maxsize=4096)
def _frame(second: int, third: int) -> _Frame | None:
    """Read bytes 2 and 3 of a frame header; None where they are not valid, or have a free bitrate."""
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    bitrate, rate = third >> 4, third >> 2 & 3
    if second < 0xE0 or version == _RESERVED or layer == 4 or bitrate in (0, 15) or rate == len(_RATES):
        return None
    bits = 1000 * _BITRATES[version == _MPEG_1, layer][bitrate - 1]
    hertz = _RATES[rate] >> (0 if version == _MPEG_1 else 1 if version == _MPEG_2 else 2)
    padding = third >> 1 & 1
    if layer == 1:
        return _Frame((12 * bits // hertz + padding) * 4, 384)
    samples = 576 if layer == 3 and version != _MPEG_1 else 1152
    return _Frame(samples // 8 * bits // hertz + padding, samples)


def _tag_bytes(head: bytes, left: int) -> int:
    """Return the bytes of a tag or of zeros that begin here, or 0. A tag at the end may be cut."""
    if id3 := id3_bytes(head):
        return id3
    if head.startswith(b"TAG"):
        return 128
    if head.startswith(b"APETAGEX") and len(head) >= 16:
        return 32 + int.from_bytes(head[12:16], "little")
    if head.startswith(b"LYRICSBEGIN"):
        return left
    return len(head) - len(head.lstrip(b"\0"))


def _declared(frame: bytes) -> int | None:
    """Return the number of frames that the first one declares, itself excluded; None where it declares none."""
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    tag = _xing(frame)
    return int.from_bytes(tag[8:12], "big") if len(tag) >= 12 and tag[7] & 1 else None


def _trimmed(frame: bytes) -> int:
    """Return the samples at both ends that are not part of the recording, from LAME's part of the first frame."""
    tag = _xing(frame)
    if len(tag) < 8:
        return 0
    fields = sum(size for bit, size in enumerate((4, 4, 100, 4)) if tag[7] >> bit & 1)
    delays = int.from_bytes(tag[8 + fields + 21 : 8 + fields + 24], "big")
    return (delays >> 12) + max(delays & 0xFFF, _DECODER_DELAY)


def _xing(frame: bytes) -> bytes:
    """Return the tag in a frame that counts the others; empty if it has none."""
    mono, mpeg_1 = frame[3] >> 6 == 3, frame[1] >> 3 & 3 == _MPEG_1
    tag = frame[4 + ((17 if mono else 32) if mpeg_1 else (9 if mono else 17)) :]
    return tag if tag[:4] in (b"Xing", b"Info") else b""
