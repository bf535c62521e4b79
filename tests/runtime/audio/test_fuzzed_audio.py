"""Test randomly damaged files of every container: each is read whole, or refused with an `AudioError`."""

import io
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import soundfile

from recordings import CONTAINERS, RATE, heard, recording
from speech_runtime import AudioError
from speech_runtime.audio.reading import read_audio

SECONDS = 0.5
HANG = 5.0
"""Seconds that no file of half a second may take."""

NUMBERS = (0, 1, 100, 2**15, 2**31 - 1, 2**40, 2**64 - 1)


@dataclass
class Tally:
    """Counts of the results of damaged files.

    Attributes:
        ends: counts of heard and refused files.
        wrong: Files with any other result: a part taken for the whole, another exception, or a hang.
    """

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def damage(how: str, content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Damage a file in one way, at a place drawn at random."""
    at = draw.randrange(1, len(content))
    if how == "truncate":
        return content[:at]
    if how == "splice":
        return content + other
    if how == "remove":
        return content[:at] + content[at + draw.randrange(1, 5000) :]
    if how == "flip":
        flipped = bytearray(content)
        for _ in range(draw.choice([1, 1, 8])):
            flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        return bytes(flipped)
    width, at = draw.choice([2, 4, 8]), draw.randrange(min(len(content) - 8, 120))
    number = draw.choice([*NUMBERS, len(content) // 2]) % 2 ** (8 * width)
    return content[:at] + number.to_bytes(width, draw.choice(["little", "big"])) + content[at + width :]


def added_samples(content: bytes) -> bytes:
    """Return the field of an MP3 with the numbers of samples in front of the recording and after it; else nothing."""
    begin = content.find(b"LAME", 0, 256)
    return content[begin + 21 : begin + 24] if begin >= 0 else b""


def misheard(how: str, whole: bytes, damaged: bytes, samples: np.ndarray, expected: np.ndarray) -> bool:
    """Return True if samples of the original are missing, or only the first of two files was read.

    A changed sampling rate does not count, nor a changed number of samples that an MP3 encoder added: nothing that
    decoders read contradicts it.
    """
    if how == "splice":
        return samples.size < 1.9 * expected.size
    if how in ("truncate", "remove"):
        return not np.array_equal(samples[: expected.size], expected)
    if added_samples(damaged) != added_samples(whole):
        return False
    return samples.size < expected.size and soundfile.info(io.BytesIO(damaged)).samplerate == RATE


@contextmanager
def no_hang() -> Iterator[None]:
    """Raise a TimeoutError in the middle of whatever takes longer than `HANG`."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"still busy after {HANG:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tried(tries: int, seed: int) -> Tally:
    """Read so many damaged files."""
    draw, tally = random.Random(seed), Tally()  # noqa: S311  # no secrets here
    wholes = [recording(*container, seconds=SECONDS) for container in CONTAINERS]
    answers = [heard(whole) for whole in wholes]
    for number in range(tries):
        kind, how = draw.randrange(len(wholes)), draw.choice(["truncate", "splice", "remove", "flip", "length"])
        damaged = damage(how, wholes[kind], draw.choice(wholes), draw)
        what = f"{'-'.join(CONTAINERS[kind])}, {how}, try {number} of seed {seed}"
        try:
            with no_hang():
                samples = read_audio(damaged, RATE)
        except AudioError:
            tally.ends["refused"] += 1
        except Exception as error:
            tally.wrong.append(f"{what}: {error!r}")
        else:
            tally.ends["heard"] += 1
            if misheard(how, wholes[kind], damaged, samples, answers[kind]):
                tally.wrong.append(f"{what}: {samples.size} of {answers[kind].size} samples are heard")
    return tally


@pytest.mark.parametrize("tries", [500, pytest.param(20_000, marks=pytest.mark.full)])
def test_damaged_files_are_heard_whole_or_refused(tries: int) -> None:
    tally = tried(tries, seed=tries)
    assert tally.wrong == []
    assert tally.ends.total() == tries
    assert min(tally.ends["refused"], tally.ends["heard"]) > tries / 10  # what is always refused would prove nothing


def test_an_info_frame_that_the_decoder_does_not_see_hides_no_frames() -> None:
    """The decoder guesses the length of such a file, and stops there."""
    content = bytearray(recording("MP3", "MPEG_LAYER_III", seconds=SECONDS))
    content[7:11] = b"\xff" * 4
    with pytest.raises(AudioError, match=r"is damaged or truncated: [0-9,]+ of 8,000 samples"):
        read_audio(bytes(content), RATE)
