"""Test every form of audio input (files, pipes, bytes, arrays, dictionaries, tuples) and the limits on its size."""

import io
import os
import sys
import threading
import time
from dataclasses import fields
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest
import soundfile

from recordings import RATE, recording
from speech_runtime import AudioError, AudioLimits
from speech_runtime.audio import clip_of, read_audio
from speech_runtime.audio.limits import flag_name
from speech_runtime.cli.flags import take_audio_limits
from speech_runtime.cli.transcribe import _opened, main

NOISE = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
INTEGERS = (NOISE * 32768).astype(np.int16)
WAV = recording("WAV", "PCM_16")


def load(audio: Any, rate: float | None = None, limits: AudioLimits | None = None) -> np.ndarray:
    return clip_of(audio, rate, "audio[7]").load(RATE, limits)


def wav(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, io.BytesIO])
def test_content_of_a_file(form: Any) -> None:
    np.testing.assert_array_equal(load(form(WAV)), load(WAV))


def test_paths_and_open_files(tmp_path: Path) -> None:
    path = tmp_path / "audio.wav"
    path.write_bytes(WAV)

    class OwnPath:
        def __fspath__(self) -> str:
            return str(path)

    with path.open("rb") as opened, path.open("rb", buffering=0) as raw:
        for form in (str(path), PurePath(path), OwnPath(), opened, raw):
            np.testing.assert_array_equal(load(form), load(WAV))
    with path.open(encoding="latin-1") as text, pytest.raises(AudioError, match="is open as text; open it with 'rb'"):
        load(text)


def test_an_open_file_is_rewound() -> None:
    file = io.BytesIO(WAV)
    file.read(1000)
    for _ in range(2):
        np.testing.assert_array_equal(load(file), load(WAV))


@pytest.mark.parametrize(
    "audio",
    [
        {"array": NOISE, "sampling_rate": RATE},
        {"raw": NOISE.astype(np.float64), "sampling_rate": np.int64(RATE)},
        {"array": NOISE.tolist(), "sampling_rate": float(RATE), "path": "a.wav"},
        {"bytes": wav(NOISE, RATE), "path": None},
        {"bytes": wav(NOISE, RATE), "path": "a.wav"},
        (RATE, NOISE),
        (RATE, np.stack([NOISE, NOISE], axis=1)),
    ],
)
def test_dictionaries_and_tuples(audio: Any) -> None:
    np.testing.assert_array_equal(load(audio, 8000), NOISE)


@pytest.mark.parametrize(
    "samples",
    [INTEGERS, np.stack([INTEGERS] * 2, axis=1), INTEGERS.astype(np.int32) * 2**16],
    ids=["16", "stereo", "32"],
)
def test_integers_of_gradio_are_scaled(samples: np.ndarray) -> None:
    np.testing.assert_allclose(load((RATE, samples)), NOISE, atol=1 / 32768)


def test_samples_of_a_dictionary_have_its_rate() -> None:
    assert load({"array": NOISE, "sampling_rate": 8000}).size == 2 * NOISE.size
    assert load({"array": NOISE}, 8000).size == 2 * NOISE.size


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ({"array": NOISE}, "without 'sampling_rate'; add the rate of its samples"),
        ({}, "is a dictionary of nothing; give {'array': samples, 'sampling_rate': Hz}"),
        ({"audio": NOISE}, "is a dictionary of 'audio'; give"),
        ({"array": INTEGERS, "sampling_rate": RATE}, "got int16; convert first"),
        ((RATE, ["x.wav"]), "expected floating-point samples"),
        (None, "is of type NoneType, which is neither a file nor an array of samples"),
        ([[0.1], [0.1, 0.2]], "is not an array of samples"),
        (np.full(RATE, 1e20) * NOISE, "has samples up to .*e.19, full scale is ±1"),
        (np.full(RATE, 1e39) * NOISE, "samples that are NaN or infinite|samples up to"),
    ],
)
def test_what_is_no_audio_is_refused(audio: Any, message: str) -> None:
    with pytest.raises(AudioError, match=f"audio\\[7\\].*{message}"):
        load(audio)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 1e30, 1, "16000", True, 999, 10**6])
def test_a_rate_that_is_none_or_out_of_bounds_is_refused(rate: Any) -> None:
    for audio in (NOISE, {"array": NOISE, "sampling_rate": rate}):
        with pytest.raises(AudioError, match="has a sampling rate of .* Hz.*give the rate that it was recorded at"):
            load(audio, rate)


def test_the_rate_of_a_file_is_bounded() -> None:
    with pytest.raises(
        AudioError, match=r"1 Hz, the least is 1,000 Hz.*lower AudioLimits\(min_rate=…\) \(--min-audio-rate\)"
    ):
        load(wav(NOISE, 1))


@pytest.mark.parametrize("left", [1.0, 0.5, 0.01])
def test_channels_that_cancel_each_other_out_are_named(left: float) -> None:
    stereo = np.stack([left * NOISE, -left * NOISE], axis=1)
    for audio in (wav(stereo, RATE), (RATE, stereo)):
        with pytest.raises(AudioError, match="its 2 channels cancel each other out when they are mixed.*pan=mono"):
            load(audio)
    np.testing.assert_allclose(load(wav(np.stack([NOISE, 0 * NOISE], axis=1), RATE)), NOISE / 2, atol=1e-7)
    with pytest.raises(AudioError, match="is silent"):
        load(wav(0 * stereo, RATE))


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_channels_that_cancel_each_other_out_in_a_part_are_named(rate: int) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(12 * rate)
    seconds = np.arange(noise.size) / rate
    part = (seconds >= 10) & (seconds < 10.3)
    stereo = np.stack([noise, np.where(part, -noise, noise)], axis=1).astype(np.float32)
    for audio in (wav(stereo, rate), (rate, stereo)):
        with pytest.raises(AudioError, match=r"its 2 channels cancel each other out .* at 10\.[01] s"):
            load(audio)
    stereo[part] *= 0.01  # a pause
    assert load(wav(stereo, rate)).size == 12 * RATE


def test_masked_samples_are_not_heard() -> None:
    masked = np.ma.masked_array(NOISE, np.arange(NOISE.size) < 100)
    for audio in (masked, {"array": masked, "sampling_rate": RATE}, (RATE, masked)):
        with pytest.raises(AudioError, match=r"audio\[7\]: has 100 masked values.*samples.filled\(0\)"):
            load(audio)
    np.testing.assert_array_equal(load(np.ma.masked_array(NOISE)), NOISE)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ((RATE, np.stack([NOISE, NOISE])), r"the shape \[2, 16000\], expected \[samples, channels\]; transpose it"),
        ((RATE, np.stack([NOISE, NOISE], axis=1).astype(complex)), "expected floating-point samples .*got complex128"),
        ((RATE, np.stack([NOISE, NOISE], axis=1).astype(object)), "array of Python objects .dtype object"),
        ((RATE, [["a", "b"], ["c", "d"]]), "expected floating-point samples .*got <U1"),
        ((RATE, np.ones((40, 33))), "has 33 channels, the limit is 32"),
        (NOISE.astype(object), "array of Python objects .dtype object"),
        (np.float32(1), "is a single number, 1.0; a list is treated as a list of clips"),
        (0.25, "is a single number, 0.25; a list is treated as a list of clips: give samples as an array"),
        (5, "is a single number, 5; a list"),
        ("", "'': cannot be read as audio"),
    ],
)
def test_what_looks_like_audio_says_what_it_is(audio: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        load(audio)


@pytest.mark.parametrize("limits", [5, {"max_seconds": 5}, 0, {}])
@pytest.mark.parametrize("audio", [WAV, NOISE, (RATE, NOISE)])
def test_what_are_no_limits_is_named(audio: Any, limits: Any) -> None:
    with pytest.raises(AudioError, match="limits is .*, it must be AudioLimits"):
        load(audio, limits=limits)


class Failing(list[float]):
    """Whose length nobody knows."""

    def __len__(self) -> int:
        raise RuntimeError("lost")


def test_the_seconds_of_what_fails_are_none() -> None:
    assert clip_of(Failing(), None, "audio[7]").seconds(RATE) == 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"max_seconds": 2},
            r"lasts 3.0 s, the limit is 2 s; split it .* AudioLimits\(max_seconds=…\) \(--max-audio-seconds\)",
        ),
        ({"max_samples": 47_999}, "has 48,000 samples, the limit is 47,999; split it"),
        ({"max_bytes": 96_043}, "has more bytes, the limit is 96,043; save it, and give its path"),
        ({"max_rate": 15_999}, "16000 Hz, the limit is 15,999 Hz"),
    ],
)
def test_budgets(limits: dict[str, float], message: str) -> None:
    with pytest.raises(AudioError, match=message):
        load(WAV, limits=AudioLimits(**limits))
    assert load(WAV, limits=AudioLimits(**{name: value + 1 for name, value in limits.items()})).size == 3 * RATE


def test_channels_are_bounded() -> None:
    with pytest.raises(AudioError, match=r"has 3 channels, the limit is 2; give the channel with the speech"):
        load(wav(np.stack([NOISE] * 3, axis=1), RATE), limits=AudioLimits(max_channels=2))


@pytest.mark.parametrize("value", [0, -1, float("nan"), "60", True])
def test_budgets_are_positive_numbers(value: Any) -> None:
    with pytest.raises(AudioError, match="max_seconds is .*; give a number above 0"):
        AudioLimits(max_seconds=value)


def test_a_small_file_that_asks_for_much_is_refused_early() -> None:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", RATE, 8, "PCM_16", format="FLAC") as written:
        for _ in range(9):
            written.write(np.zeros((10**6, 8), dtype=np.int16))
    content = bytearray(file.getvalue())
    assert len(content) < 10**6
    with pytest.raises(AudioError, match="has 72,000,000 samples, the limit is 1,000,000"):
        load(bytes(content), limits=AudioLimits(max_samples=10**6))
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])  # its length is not said
    with pytest.raises(AudioError, match="has 1,048,576 samples, the limit is 1,000,000"):
        load(bytes(content), limits=AudioLimits(max_samples=10**6))


class Endless(io.RawIOBase):
    """A stream without an end, like /dev/zero."""

    given = 0

    def read(self, count: int = -1) -> bytes:
        self.given += count
        return bytes(count)


def test_what_never_ends_is_left() -> None:
    endless = Endless()
    with pytest.raises(AudioError, match="has more bytes, the limit is 5,000,000"):
        load(endless, limits=AudioLimits(max_bytes=5 * 10**6))
    assert endless.given < 10**7
    with pytest.raises(AudioError, match="/dev/zero: has more bytes"):
        load("/dev/zero", limits=AudioLimits(max_bytes=10**6))


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[WAV])
    writer.start()
    np.testing.assert_array_equal(load(pipe), load(WAV))
    writer.join()


def test_a_pipe_that_nobody_writes_to_is_left(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AudioError, match=r"this pipe delivered no data for 0.1 s; .*max_wait=…\) \(--max-audio-wait\)"):
        load(tmp_path / "pipe", limits=AudioLimits(max_wait=0.1))


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("blocking", [False, True])
def test_an_open_pipe_that_has_nothing_yet_has_not_ended(blocking: bool, buffering: int) -> None:
    out, into = os.pipe()
    os.set_blocking(out, blocking)

    def write() -> None:
        with os.fdopen(into, "wb", buffering=0) as file:
            for begin in range(0, len(WAV), 40_000):
                file.write(WAV[begin : begin + 40_000])
                time.sleep(0.1)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(out, "rb", buffering=buffering) as file:
        np.testing.assert_array_equal(load(file), load(WAV))
    writer.join()


class Late(io.RawIOBase):
    """Has nothing yet whenever it is asked for the first of two times."""

    def __init__(self, content: bytes) -> None:
        self.blocks = [block for begin in range(0, len(content), 40_000) for block in (None, content[begin:][:40_000])]

    def read(self, count: int = -1) -> bytes | None:
        return self.blocks.pop(0) if self.blocks else b""


def test_none_is_not_the_end() -> None:
    np.testing.assert_array_equal(load(Late(WAV)), load(WAV))
    never = Late(WAV)
    never.blocks = [None] * 10_000
    with pytest.raises(AudioError, match=r"this pipe delivered no data for 0.1 s"):
        load(never, limits=AudioLimits(max_wait=0.1))


@pytest.mark.parametrize("form", ["buffered", "raw", "stdin"])
def test_an_open_pipe_that_nobody_writes_to_is_left(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out, into = os.pipe()
    with os.fdopen(into, "wb") as writer, os.fdopen(out, "rb", buffering=0 if form == "raw" else -1) as file:
        writer.write(WAV[:1000])
        writer.flush()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file) if form == "stdin" else None)
        with pytest.raises(AudioError, match=r"this pipe delivered no data for 0.1 s; .*--max-audio-wait"):
            load(_opened("-") if form == "stdin" else file, limits=AudioLimits(max_wait=0.1))


def test_a_wait_without_end_is_one_that_the_system_takes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[WAV])
    writer.start()
    np.testing.assert_array_equal(load(pipe, limits=AudioLimits(max_wait=float("inf"))), load(WAV))
    writer.join()


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe.wav"
    Path(os.fsdecode(path)).write_bytes(WAV)
    assert load(os.fsdecode(path)).size == 3 * RATE
    with pytest.raises(AudioError, match="there is no such file"):
        load(os.fsdecode(path) + "x")


class Broken(io.RawIOBase):
    """Fails with what no file should."""

    def read(self, count: int = -1) -> bytes:
        raise KeyError("storage")


def test_whatever_an_open_file_raises_is_its_error() -> None:
    with pytest.raises(AudioError, match="the open file: cannot be read as audio: 'storage'"):
        load(Broken())
    with pytest.raises(AudioError, match="cannot be read as audio"):
        read_audio("name\0with nothing", RATE)
    with pytest.raises(AudioError, match=r"it is a directory; give its files"):
        read_audio("/", RATE)


def test_every_budget_has_a_flag() -> None:
    flags = {flag for option in main.params for flag in option.opts}
    assert {f"--{flag_name(budget.name)}" for budget in fields(AudioLimits)} <= flags


def test_flags_become_budgets() -> None:
    options = {"max_audio_seconds": 5.0, "max_audio_samples": 6, "max_audio_channels": 7, "min_audio_rate": 8.0}
    options |= {"max_audio_rate": 9.0, "max_audio_bytes": 10, "max_audio_wait": 11.0}
    others: dict[str, Any] = {**options, "num_beams": 4}
    assert take_audio_limits(others) == AudioLimits(5.0, 6, 7, 8.0, 9.0, 10, 11.0)
    assert others == {"num_beams": 4}
