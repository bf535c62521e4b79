"""Detection of a file's container by its first bytes."""

from collections.abc import Callable
from functools import partial

from ..sources import Source
from .extent import CONVERT, DamagedError, Extent
from .flac import flac_extent, is_flac
from .mpeg import mpeg_extent
from .ogg import ogg_extent
from .uncompressed import AIFF, CAF, RIFF, RIFX, SVX, WAVE64, au_extent, chunk_extent, sphere_extent

_CONTAINERS: dict[bytes, Callable[[Source], Extent]] = {
    b"RIFF": partial(chunk_extent, layout=RIFF),
    b"RF64": partial(chunk_extent, layout=RIFF),
    b"RIFX": partial(chunk_extent, layout=RIFX),
    b"riff": partial(chunk_extent, layout=WAVE64),
    b"caff": partial(chunk_extent, layout=CAF),
    b".snd": partial(au_extent, order="big"),
    b"dns.": partial(au_extent, order="little"),
    b"NIST": sphere_extent,
    b"OggS": ogg_extent,
    b"ID3": mpeg_extent,
}
"""Function that checks a container, by the container's first bytes."""

_NOT_READ = {
    (4, b"ftyp"): "MP4 (m4a, AAC or ALAC)",
    (0, b"\x1aE\xdf\xa3"): "WebM or Matroska",
    (0, b"\xff\xf1"): "AAC",
    (0, b"\xff\xf9"): "AAC",
    (0, b"ADIF"): "AAC",
    (0, b"#!AMR"): "AMR",
    (0, b"0&\xb2u\x8ef\xcf\x11"): "Windows Media (wma)",
    (0, b"wvpk"): "WavPack",
    (0, b"MAC "): "Monkey's Audio",
    (0, b"FLV"): "Flash video",
}
"""Formats that libsndfile does not read, by the offset of the bytes that identify them."""


def extent_of(source: Source) -> Extent | None:
    """Check a file's container, and return the extent of its audio; None if the container is unknown.

    Raises:
        DamagedError: The file is incomplete, or libsndfile does not read its format.
    """
    head = source.read_at(0, 16)
    for (offset, magic), kind in _NOT_READ.items():
        if head.startswith(magic, offset):
            raise DamagedError(f"is {kind}, which libsndfile does not read; convert it with: {CONVERT}")
    if is_flac(source):
        return flac_extent(source)
    if head.startswith(b"FORM"):
        return chunk_extent(source, SVX if head[8:12] in (b"8SVX", b"16SV") else AIFF)
    for magic, extent in _CONTAINERS.items():
        if head.startswith(magic):
            return extent(source)
    return mpeg_extent(source) if head[:1] == b"\xff" and head[1:2] >= b"\xe0" else None
