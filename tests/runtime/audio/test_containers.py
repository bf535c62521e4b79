"""Test that a file is read whole or refused: truncated, joined, wrong sizes, damaged, or changed while it is read."""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from recordings import CONTAINERS, NAMES, RATE, heard, recording
from speech_runtime import AudioError
from speech_runtime.audio import reading
from speech_runtime.audio.containers import Extent
from speech_runtime.audio.reading import read_audio
from speech_runtime.audio.sources import Source

every_container = pytest.mark.parametrize("container", CONTAINERS, ids=NAMES)


@every_container
def test_every_sample_of_a_whole_file_is_heard(container: tuple[str, str], tmp_path: Path) -> None:
    content = recording(*container)
    path = tmp_path / "audio"
    path.write_bytes(content)
    expected = heard(content)
    assert expected.size >= 3 * RATE - 1000
    np.testing.assert_array_equal(read_audio(content, RATE), expected)
    np.testing.assert_array_equal(read_audio(path, RATE), expected)


@every_container
def test_a_file_that_is_cut_anywhere_is_refused(container: tuple[str, str], tmp_path: Path) -> None:
    content = recording(*container)
    ends = {
        *np.linspace(1, len(content), 40, endpoint=False, dtype=int).tolist(),
        *range(len(content) - 8, len(content)),
    }
    for end in ends:
        with pytest.raises(AudioError):
            read_audio(content[:end], RATE)
    path = tmp_path / "cut"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match="cut: .*(truncated|cannot be read as audio)"):
        read_audio(path, RATE)


@every_container
@pytest.mark.parametrize("second", [("WAV", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), None])
def test_two_files_in_one_are_refused(container: tuple[str, str], second: tuple[str, str] | None) -> None:
    with pytest.raises(AudioError):
        read_audio(recording(*container) + recording(*(second or container)), RATE)


def test_frames_of_mp3_without_a_count_are_all_heard() -> None:
    file = io.BytesIO()
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE)
    soundfile.write(file, noise, RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    content = file.getvalue()
    frames = content[content.index(content[:3], 4) :]
    assert frames.count(b"Info") == 0
    assert read_audio(frames + frames, RATE).size == 2 * read_audio(frames, RATE).size
    with pytest.raises(AudioError, match="bytes of its last frame; copy it again"):
        read_audio(frames[:-1], RATE)
    content = recording("MP3", "MPEG_LAYER_III")  # of a variable bitrate, whose length libsndfile guesses
    with pytest.raises(AudioError, match="does not state its number of frames, and .* add it with: ffmpeg"):
        read_audio(content[content.index(content[:2], 4) :], RATE)


def patched(container: str, after: bytes, value: bytes, offset: int = 0, subtype: str = "PCM_16") -> bytes:
    """A recording with other bytes at an offset behind a mark of its header."""
    content = recording(container, subtype)
    begin = content.index(after) + len(after) + offset
    return content[:begin] + value + content[begin + len(value) :]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (patched("WAV", b"data", struct.pack("<I", 32000)), "has 64,000 more bytes after the 32,000 bytes"),
        (patched("WAV", b"data", struct.pack("<I", 0)), "declares 0 bytes of audio, and 96,000 bytes follow"),
        (patched("WAV", b"data", struct.pack("<I", 2**31 + 2**20)), "is truncated: it has 96,000 of 2,148,532,224"),
        (patched("WAV", b"data", struct.pack("<I", 96002)), "is truncated"),
        (patched("WAV", b"WAVE", b"dat_", offset=24), "has no chunk of samples"),
        (patched("AIFF", b"SSND", struct.pack(">I", 32008)), "has 64,000 more bytes"),
        (patched("AIFF", b"SSND", struct.pack(">I", 2**40 >> 10)), "is truncated"),
        (patched("AU", b".snd", struct.pack(">I", 32000), offset=4), "has 64,000 more bytes"),
        (patched("AU", b".snd", struct.pack(">I", 0), offset=4), "declares 0 bytes"),
        (
            patched("AU", b".snd", struct.pack(">I", 31), offset=16),
            r"no whole number of frames of 62 bytes \(31 channels",
        ),
        (patched("CAF", b"desc", b"\0\0\0\x01", offset=28, subtype="ALAC_16"), "of 48,000 samples could be decoded"),
        (patched("CAF", b"data", struct.pack(">Q", 32004)), "has 64,0.* more bytes|malformed"),
        (patched("CAF", b"data", struct.pack(">Q", 9 * 2**40)), "is truncated: it has [0-9,]+ of 9,895,604,649,9"),
        (patched("W64", b"data", struct.pack("<Q", 9 * 2**40), offset=12), "is truncated"),
        *(
            (patched("W64", name, struct.pack("<Q", size), offset=12), f"its chunk '{name.decode()}' is smaller than")
            for name, size in ((b"data", 0), (b"data", 23), (b"fmt ", 0), (b"fmt ", 1))
        ),
        (patched("RF64", b"ds64", struct.pack("<Q", 9 * 2**40), offset=12), "is truncated"),
        (patched("NIST", b"sample_count -i ", b"16000"), "has 64,000 more bytes"),
        (patched("NIST", b"sample_count -i ", b"99999"), "is truncated: it has 96,000 of 199,998"),
        (patched("NIST", b"-s2 01\nsample_", b"c0"), "has no number of samples"),
    ],
)
def test_a_size_that_is_not_the_files_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        read_audio(content, RATE)


@pytest.mark.parametrize(
    "content",
    [
        *(
            patched("WAV", b"data", struct.pack("<I", size))
            for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000)
        ),
        patched("AU", b".snd", b"\xff" * 4, offset=4),
        patched("CAF", b"data", b"\xff" * 8),
        patched("W64", b"data", struct.pack("<Q", 2**63 - 1), offset=12),
        recording("WAV", "PCM_16") + bytes(512),
        recording("WAV", "PCM_16") + b"LIST" + struct.pack("<I", 4) + b"INFO",
        recording("WAV", "PCM_16") + b"TAG" + b"x" * 125,
        recording("MP3", "MPEG_LAYER_III") + b"TAG" + b"x" * 125,
        b"ID3\3\0\0\0\0\0\x0a" + bytes(10) + recording("MP3", "MPEG_LAYER_III"),
        b"ID3\3\0\0\0\0\0\x0a" + bytes(10) + recording("FLAC", "PCM_16"),
        patched("FLAC", b"fLaC", b"\xf0\0\0\0\0", offset=17),  # of unknown length, as who writes to a pipe leaves it
        patched("FLAC", b"fLaC", b"\xf0\0\0\0\x10", offset=17),  # counts 16 samples
    ],
    ids=range(15),
)
def test_what_is_whole_is_heard(content: bytes) -> None:
    assert read_audio(content, RATE).size == 3 * RATE


def wave(tag: int, bits: int, align: int, extension: bytes = b"") -> bytes:
    """Half a second of noise, of two bytes a sample, with a header of these fields."""
    noise = np.random.default_rng(0).integers(-3000, 3000, 8000, dtype=np.int16).tobytes()
    fields = struct.pack("<HHIIHH", tag, 1, RATE, RATE * align, align, bits) + extension
    chunks = b"fmt " + struct.pack("<I", len(fields)) + fields + b"data" + struct.pack("<I", len(noise)) + noise
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def extension(tag: int, bits: int) -> bytes:
    return struct.pack("<HHIH", 22, bits, 4, tag) + bytes.fromhex("000000001000800000aa00389b71")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wave(1, 24, 2), r"PCM of 1 × 24 bits in frames of 2 bytes"),
        (wave(1, 32, 2), r"PCM of 1 × 32 bits in frames of 2 bytes"),
        (wave(1, 8, 2), r"PCM of 1 × 8 bits in frames of 2 bytes"),
        (wave(3, 32, 2), r"floating-point of 1 × 32 bits in frames of 2 bytes"),
        (wave(6, 16, 2), r"A-law of 16 bits instead of 8"),
        (wave(7, 16, 2), r"mu-law of 16 bits instead of 8"),
        (wave(0xFFFE, 24, 2, extension(1, 24)), r"PCM of 1 × 24 bits in frames of 2 bytes"),
    ],
    ids=range(7),
)
def test_a_header_that_contradicts_itself_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=f"has a header that contradicts itself: {message}"):
        read_audio(content, RATE)


@pytest.mark.parametrize("content", [wave(1, 16, 2), wave(1, 12, 2), wave(0xFFFE, 16, 2, extension(1, 12))])
def test_samples_with_bits_to_spare_are_heard(content: bytes) -> None:
    assert read_audio(content, RATE).size == 8000


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_24", "ULAW", "ALAW"])
@pytest.mark.parametrize("channels", [1, 2])
def test_sphere_of_any_samples_is_heard(subtype: str, channels: int) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    file = io.BytesIO()
    soundfile.write(file, np.stack([noise] * channels, axis=1), RATE, format="NIST", subtype=subtype)
    np.testing.assert_allclose(read_audio(file.getvalue(), RATE), noise, atol=0.02)
    with pytest.raises(AudioError, match="is truncated"):
        read_audio(file.getvalue()[:-100], RATE)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000, 11025, 12345, 255_000, 131_070])
def test_flac_whose_frames_have_another_format_is_refused(rate: int) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(rate)
    file = io.BytesIO()
    soundfile.write(file, noise, rate, format="FLAC")
    content = file.getvalue()
    assert abs(read_audio(content, RATE).size - RATE) <= 1
    for byte, mask in ((18, 0x15), (19, 0x01), (20, 0x10), (21, 0x80)):
        changed = bytearray(content)
        changed[byte] ^= mask
        with pytest.raises(AudioError, match=r"its header has \d+ bits at .* Hz, and its first frame 16 bits at"):
            read_audio(bytes(changed), RATE)


def test_flac_of_unknown_length_is_whole_or_refused() -> None:
    content = patched("FLAC", b"fLaC", b"\xf0\0\0\0\0", offset=17)
    for damaged in (content[:-1], content[: len(content) // 2], content + content):
        with pytest.raises(AudioError, match="truncated, or two files in one"):
            read_audio(damaged, RATE)
    with pytest.raises(AudioError, match=r"48,000 of 48,001 samples"):
        read_audio(patched("FLAC", b"fLaC", b"\xf0\0\0" + struct.pack(">H", 48001), offset=17), RATE)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_pages_of_ogg_are_all_there_and_whole(subtype: str) -> None:
    content = recording("OGG", subtype)
    pages = [b"OggS" + page for page in content.split(b"OggS")[1:]]
    assert len(pages) > 3
    for wrong in (pages[:-1], [*pages[:-2], pages[-1]], [*pages[:2], *pages[3:]]):
        with pytest.raises(AudioError, match=r"(its last page|page \d) is missing"):
            read_audio(b"".join(wrong), RATE)
    flipped = bytearray(content)
    flipped[-len(pages[-1]) - 20] ^= 1
    with pytest.raises(AudioError, match="expected a complete Ogg page"):
        read_audio(bytes(flipped), RATE)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: os.truncate(file, 50_000),
        lambda file: os.truncate(file, 100_000),
        lambda file: os.utime(file, ns=(1, 1)),
    ],
    ids=["shrinks", "grows", "is written to"],
)
def test_a_file_that_changes_while_it_is_read_is_refused(
    change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "changing.wav"
    path.write_bytes(recording("WAV", "PCM_16"))
    extent_of = reading.extent_of

    def changed(source: Source) -> Extent | None:
        extent = extent_of(source)
        change(path)
        return extent

    monkeypatch.setattr(reading, "extent_of", changed)
    with pytest.raises(AudioError, match=r"changing\.wav: (changed while it was read|is damaged or truncated)"):
        read_audio(path, RATE)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x20ftypM4A " + bytes(100), r"MP4 \(m4a"),
        (b"\x1aE\xdf\xa3" + bytes(100), "WebM"),
        (b"\xff\xf1\x50\x80" + bytes(100), "AAC"),
        (b"#!AMR\n" + bytes(100), "AMR"),
    ],
)
def test_what_is_not_read_says_what_to_convert_it_with(content: bytes, kind: str) -> None:
    with pytest.raises(AudioError, match=f"is {kind}.*convert it with: ffmpeg -i FILE"):
        read_audio(content, RATE)


@pytest.mark.parametrize("container", ["IRCAM", "PVF", "VOC", "AVR"])
def test_a_container_without_a_size_is_refused(container: str) -> None:
    with pytest.raises(AudioError, match="whose completeness cannot be checked; convert it with: ffmpeg"):
        read_audio(recording(container, "PCM_16"), RATE)


def test_samples_without_a_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "audio.raw"
    path.write_bytes(np.random.default_rng(0).bytes(32000))
    with pytest.raises(AudioError, match=r"audio\.raw: .*raw samples without a header with: ffmpeg -f s16le"):
        read_audio(path, RATE)
