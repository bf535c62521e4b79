"""What a container holds, and what is wrong with it."""

from dataclasses import dataclass

from ..sources import Source

CONVERT = "ffmpeg -i FILE -ac 1 -ar 16000 FILE.wav"
"""What makes a file that is read of nearly any that is not."""

_TAG_BYTES = 128
_MOST_PADDING = 2**24


@dataclass(frozen=True)
class Extent:
    """How much audio a container holds, as far as it can be told without decoding.

    Attributes:
        data_bytes: size of its samples, where they are stored one after the other.
        frames: samples a channel that must come out of the decoder at least.
        counted: whether the number of frames that libsndfile expects is one that the container declares, and no guess.
        replaced: position of bytes, and what the decoder is to read in their place.
    """

    data_bytes: int | None = None
    frames: int = 0
    counted: bool = True
    replaced: tuple[int, bytes] | None = None


class DamagedError(Exception):
    """A file that is not whole, or holds more than one stream; says what to do, and leaves the name to others."""


def truncated(there: int, declared: int, unit: str = "bytes of audio") -> DamagedError:
    """The error for a file that ends early."""
    return DamagedError(f"is truncated: it has {there:,} of {declared:,} {unit}; copy it again")


def two_streams() -> DamagedError:
    """The error for a file with more audio than a decoder would tell of."""
    return DamagedError("has two streams of audio in it, of which one would be heard; split it")


def check_span(source: Source, begin: int, length: int) -> None:
    """Check that a file's only span of audio is all there, and no audio can come after it.

    Raises:
        DamagedError: the file ends early, or goes on.
    """
    if begin + length > source.size:
        raise truncated(max(0, source.size - begin), length)
    check_rest(source, begin + length, length)


def check_rest(source: Source, position: int, length: int) -> None:
    """Check that only padding, or an ID3 tag, comes behind the `length` bytes of audio that a header counts.

    Raises:
        DamagedError: there is more.
    """
    behind = source.size - position
    if behind == _TAG_BYTES and source.read_at(position, 3) == b"TAG":
        return
    if behind <= _MOST_PADDING and not source.read_at(position, behind).strip(b"\0"):
        return
    if length == 0:
        raise DamagedError(
            f"declares 0 bytes of audio, and {behind:,} bytes follow: it was never closed by what recorded it; "
            "restore its header, for example with: sox --ignore-length FILE whole.wav"
        )
    raise DamagedError(
        f"goes on for {behind:,} bytes behind the {length:,} bytes of audio that its header counts: two files in one, "
        "or a recording that was not closed; split it, or restore its header with: sox --ignore-length FILE whole.wav"
    )
