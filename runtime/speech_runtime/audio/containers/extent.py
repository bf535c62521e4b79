"""The extent of a container's audio, the error for a damaged file, and checks that the formats share."""

from dataclasses import dataclass

from ..sources import Source

CONVERT = "ffmpeg -i FILE -ac 1 -ar 16000 FILE.wav"
"""Command that converts nearly any file to one that can be read."""

_TAG_BYTES = 128
_MOST_PADDING = 2**24


@dataclass(frozen=True)
class Extent:
    """Amount of audio in a container, as far as it is known without decoding.

    Attributes:
        data_bytes: Size of the samples in bytes, where they are stored one after the other; None otherwise.
        frames: Least number of samples per channel that must be decoded.
        counted: If true, the container declares the number of frames that libsndfile expects; if false, it is a guess.
        replaced: Position and bytes that the decoder must read in place of the file's own; None for none.
    """

    data_bytes: int | None = None
    frames: int = 0
    counted: bool = True
    replaced: tuple[int, bytes] | None = None


class DamagedError(Exception):
    """A file is incomplete, or holds more than one stream. The message has the remedy; callers add the name."""


def truncated(there: int, declared: int, unit: str = "bytes of audio") -> DamagedError:
    """Return the error for a file that ends early."""
    return DamagedError(f"is truncated: it has {there:,} of {declared:,} {unit}; copy it again")


def two_streams() -> DamagedError:
    """Return the error for a file with a second stream, which a decoder would silently ignore."""
    return DamagedError("has two streams of audio, of which only one would be read; split it")


def check_span(source: Source, begin: int, length: int) -> None:
    """Check that a file's only span of audio is complete, and that nothing follows that could be audio.

    Raises:
        DamagedError: The file ends early, or more data follows.
    """
    if begin + length > source.size:
        raise truncated(max(0, source.size - begin), length)
    check_rest(source, begin + length, length)


def check_rest(source: Source, position: int, length: int) -> None:
    """Check that only padding or an ID3v1 tag follows the `length` bytes of audio that a header declares.

    Raises:
        DamagedError: More data follows.
    """
    behind = source.size - position
    if behind == _TAG_BYTES and source.read_at(position, 3) == b"TAG":
        return
    if behind <= _MOST_PADDING and not source.read_at(position, behind).strip(b"\0"):
        return
    if length == 0:
        raise DamagedError(
            f"declares 0 bytes of audio, and {behind:,} bytes follow: the recorder never closed it; "
            "restore its header, for example with: sox --ignore-length FILE whole.wav"
        )
    raise DamagedError(
        f"has {behind:,} more bytes after the {length:,} bytes of audio that its header declares: two files in one, or "
        "a recording that was not closed; split it, or restore its header with: sox --ignore-length FILE whole.wav"
    )


def id3_bytes(head: bytes) -> int:
    """Return the size of the ID3v2 tag that begins with `head` (at least 10 bytes); 0 if there is no tag.

    Some MP3 and FLAC files begin with one.
    """
    if not head.startswith(b"ID3") or len(head) < 10:
        return 0
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 0x10 else 0)
