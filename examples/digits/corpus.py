"""Real speech: the recordings of the Free Spoken Digit Dataset (FSDD), joined into digit strings.

FSDD has six speakers who said each digit about fifty times, one digit a file, at 8 kHz. A string is
several recordings of one speaker with pauses between them.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from digit_strings import LONGEST_STRING, Digits, draw_digits, spell

SAMPLE_RATE = 16_000
FSDD_RATE = 8_000

_TEST_INDICES = frozenset({2, 3, 4})
_DEV_INDICES = frozenset({5})
_FILE_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")

Samples = NDArray[np.float32]
Span = tuple[int, int]
Split = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class Recording:
    """One spoken digit; `samples` is mono float32 in [-1, 1] at `rate` Hz."""

    speaker: str
    digit: int
    samples: Samples
    rate: int


@dataclass(frozen=True)
class Utterance:
    """A spoken string; `samples` is mono float32 at 16 kHz.

    `spans` holds the first sample and the end of each digit, where they are known.
    """

    samples: Samples
    digits: Digits
    spans: tuple[Span, ...] | None = None

    @property
    def text(self) -> str:
        """The words that are said."""
        return spell(self.digits)


def split_of(index: int) -> Split:
    """Return the part of the data set that the recordings numbered `index` belong to."""
    if index in _TEST_INDICES:
        return "test"
    if index in _DEV_INDICES:
        return "dev"
    return "train"


def load_recordings(archive: Path, split: Split) -> list[Recording]:
    """All recordings of `split` in the FSDD archive, in the order of their file names."""
    found: dict[str, Recording] = {}
    with tarfile.open(archive, "r:*") as members:
        for member in members:
            name = Path(member.name).name
            match = _FILE_NAME.fullmatch(name)
            if match is None or split_of(int(match[3])) != split:
                continue
            content = members.extractfile(member)
            if content is None:
                continue
            samples, rate = soundfile.read(io.BytesIO(content.read()), dtype="float32")
            found[name] = Recording(match[2], int(match[1]), samples, rate)
    if not found:
        raise FileNotFoundError(f"no FSDD recordings of the {split} split in {archive}")
    return [found[name] for name in sorted(found)]


def by_speaker(recordings: Sequence[Recording]) -> dict[str, dict[int, list[Recording]]]:
    """The recordings of each digit, by speaker."""
    grouped: dict[str, dict[int, list[Recording]]] = {}
    for recording in recordings:
        grouped.setdefault(recording.speaker, {}).setdefault(recording.digit, []).append(recording)
    return grouped


def join(pieces: Sequence[Samples], pauses: Sequence[int]) -> tuple[Samples, tuple[Span, ...]]:
    """Lay the pieces out with silence around them, and say where each of them went.

    `pauses` counts the samples of silence before the first piece, between each two and after the last.
    """
    total = sum(pauses) + sum(len(piece) for piece in pieces)
    joined = np.zeros(total, dtype=np.float32)
    spans: list[Span] = []
    position = 0
    for piece, pause in zip(pieces, pauses, strict=False):
        start = position + pause
        position = start + len(piece)
        joined[start:position] = piece
        spans.append((start, position))
    return joined, tuple(spans)


def draw_pauses(random: np.random.Generator, digits: int, rate: int) -> list[int]:
    """Samples of silence: 20 to 350 ms between digits, up to 250 ms before and after the string."""
    between = random.uniform(0.020, 0.350, digits - 1)
    before, after = random.uniform(0.0, 0.250, 2)
    return [int(seconds * rate) for seconds in (before, *between, after)]


def joined_strings(recordings: Sequence[Recording], count: int, seed: int) -> list[Utterance]:
    """Strings of 1 to 8 digits, lengths and speakers in turn, with the levels the recordings came with."""
    random = np.random.default_rng(seed)
    speakers = by_speaker(recordings)
    names = sorted(speakers)
    strings: list[Utterance] = []
    for number in range(count):
        takes = speakers[names[number // LONGEST_STRING % len(names)]]
        digits = draw_digits(random, 1 + number % LONGEST_STRING)
        chosen = [takes[digit][int(random.integers(len(takes[digit])))] for digit in digits]
        rate = chosen[0].rate
        samples, _ = join([take.samples for take in chosen], draw_pauses(random, len(digits), rate))
        strings.append(Utterance(soxr.resample(samples, rate, SAMPLE_RATE), digits))
    return strings


def test_strings(archive: Path, count: int, seed: int) -> list[tuple[Samples, str]]:
    """`count` strings of recordings the model never heard, as (float32 samples at 16 kHz, text)."""
    strings = joined_strings(load_recordings(archive, "test"), count, seed)
    return [(string.samples, string.text) for string in strings]
