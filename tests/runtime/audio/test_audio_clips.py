"""Test reading audio files and arrays: the samples of what is accepted, the errors of what is not."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech_runtime import AudioError, install_hints
from speech_runtime.audio import prepare, read_audio


def tone(rate: int, seconds: float = 0.5) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_any_rate_becomes_the_models(tmp_path: Path, rate: int, suffix: str) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(rate), rate)
    samples = read_audio(path, 16000)
    assert samples.dtype == np.float32
    assert abs(samples.size - 8000) <= 1
    middle = slice(1000, 7000)
    np.testing.assert_allclose(samples[middle], tone(16000)[middle], atol=2e-3)


def test_stereo_is_mixed(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(16000), -0.5 * tone(16000)], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path, 16000), 0.25 * tone(16000), atol=1e-6)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="nothing.wav: cannot be read as audio: there is no such file"):
        read_audio(tmp_path / "nothing.wav", 16000)
    with pytest.raises(AudioError, match=r"clip\.wav: is an address, and only files are read; download it first"):
        read_audio("https://example.org/clip.wav", 16000)


@pytest.mark.parametrize("content", [b"", b"not audio at all" * 100, b"RIFF\x00\x00"])
def test_what_is_not_audio_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match="text.wav: cannot be read as audio"):
        read_audio(path, 16000)


@pytest.mark.parametrize(("content", "reason"), [(b"", "it has 0 bytes"), (b"not audio" * 99, "its format is unknown")])
def test_the_formats_that_are_read_are_listed(content: bytes, reason: str) -> None:
    formats = "wav, rf64, w64, aiff, iff, caf, au, sph, htk, flac, ogg, opus and mp3"
    with pytest.raises(AudioError, match=f"{reason}.* Supported formats are {formats}"):
        read_audio(content, 16000)


@pytest.mark.parametrize("rate", [0, -8000])
def test_a_rate_that_is_none_is_refused(rate: int) -> None:
    with pytest.raises(AudioError, match=f"has a sampling rate of {rate} Hz"):
        prepare(tone(16000), rate, 16000)


def test_a_truncated_file_is_refused_and_a_streamed_one_is_not(tmp_path: Path) -> None:
    whole, cut, streamed = (tmp_path / f"{name}.wav" for name in ("whole", "cut", "streamed"))
    soundfile.write(whole, tone(16000), 16000)
    content = whole.read_bytes()
    cut.write_bytes(content[:-4000])
    with pytest.raises(AudioError, match="is truncated: it has 12,000 of 16,000 bytes of audio"):
        read_audio(cut, 16000)
    data = content.index(b"data")
    streamed.write_bytes(content[: data + 4] + b"\xff\xff\xff\xff" + content[data + 8 :])
    np.testing.assert_array_equal(read_audio(streamed, 16000), read_audio(whole, 16000))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(0, np.float32), "is empty"),
        (np.zeros(16000, np.float32), "is silent: all of its 16,000 samples are 0"),
        (np.array([0.1, np.nan, np.inf], np.float32), "2 samples that are NaN or infinite"),
        (
            np.zeros((2, 100), np.float32),
            r"got shape \[2, 100\]; mix the channels of one clip, or give several clips as",
        ),
        (np.zeros((1, 100), np.float32), r"got shape \[1, 100\]; take its only row"),
        (np.ones(100, np.int16), r"got int16; convert first"),
        (np.array(0.5), r"is a single number, 0.5"),
    ],
)
def test_bad_arrays_are_refused(samples: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        prepare(samples, 16000, 16000)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'soxr'", name="soxr"), r"soxr is needed to read audio: pip install"),
        (ModuleNotFoundError("No module named 'abc2'", name="abc2"), "cannot be imported: No module named 'abc2'"),
        (
            ImportError("libsoxr.so: failed to map segment", name="soxr"),
            "cannot be imported: libsoxr.so: failed",
        ),
        (OSError("sndfile library not found"), "cannot be imported: sndfile library not found"),
        (MemoryError(), "cannot be imported: MemoryError"),
    ],
)
def test_a_library_that_is_missing_is_told_from_one_that_fails(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(install_hints, "import_module", fail)
    with pytest.raises(AudioError, match=message):
        install_hints.import_audio_library("soxr")
