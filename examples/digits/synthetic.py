"""The synthetic part of the corpus: strings and single digits spoken by many voices, cached on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpus import SAMPLE_RATE, Recording, Samples, Utterance
from digit_strings import LONGEST_STRING, SHORTEST_HELD_OUT, Digits, draw_held_out_digits, draw_training_digits
from voices import Voice, VoiceSet, draw_voice, speak

_FLITE_SHARE = 0.4
_STRINGS_PER_JOB = 50


@dataclass(frozen=True)
class SpokenText:
    """An utterance of a voice: `samples` is int16 (full scale 32767) at 16 kHz, to halve the cache."""

    voice: str
    digits: Digits
    samples: NDArray[np.int16]


def as_float(samples: NDArray[np.int16]) -> Samples:
    """int16 -> float32 in [-1, 1]."""
    return samples.astype(np.float32) / np.float32(32767)


def _said(voice: Voice, digits: Digits, separator: str) -> SpokenText:
    samples = speak(voice, digits, separator)
    return SpokenText(voice.name, digits, (np.clip(samples, -1, 1) * 32767).astype(np.int16))


def _draw_separator(random: np.random.Generator) -> str:
    return ", " if random.random() < 0.4 else " "


def _training_strings(seed: tuple[int, ...], count: int) -> list[SpokenText]:
    random = np.random.default_rng(seed)
    spoken = []
    for _ in range(count):
        digits = draw_training_digits(random, LONGEST_STRING)
        spoken.append(_said(draw_voice(random, _FLITE_SHARE), digits, _draw_separator(random)))
    return spoken


def _training_speakers(seed: tuple[int, ...], count: int) -> list[SpokenText]:
    """`count` voices saying each digit by itself, ten texts a voice, in the order of the digits."""
    random = np.random.default_rng(seed)
    spoken = []
    for _ in range(count):
        voice = draw_voice(random, _FLITE_SHARE)
        spoken += [_said(voice, (digit,), " ") for digit in range(10)]
    return spoken


def _cached(path: Path, make: Callable[[], Iterable[SpokenText]]) -> list[SpokenText]:
    """Return the result of `make`, from the cache files if there are any: one array and its table of contents."""
    table = path.with_suffix(".json")
    if not table.exists():
        spoken = list(make())
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate([text.samples for text in spoken]))
        contents = [(text.voice, text.digits, len(text.samples)) for text in spoken]
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(contents))
        unfinished.replace(table)
    everything: NDArray[np.int16] = np.load(path, mmap_mode="r")
    loaded: list[SpokenText] = []
    position = 0
    for voice, digits, length in json.loads(table.read_text()):
        loaded.append(SpokenText(voice, tuple(digits), everything[position : position + length]))
        position += length
    return loaded


def training_strings(cache: Path, count: int, seed: int, processes: int) -> list[SpokenText]:
    """About `count` whole strings by random training voices, none of them a held-out text."""

    def make() -> Iterable[SpokenText]:
        jobs = max(1, count // _STRINGS_PER_JOB)
        with ProcessPoolExecutor(processes) as pool:
            running = [
                pool.submit(_training_strings, (seed, 1, job), min(count, _STRINGS_PER_JOB)) for job in range(jobs)
            ]
            return [text for job in running for text in job.result()]

    return _cached(cache / f"strings-{seed}-{count}.npy", make)


def training_speakers(cache: Path, count: int, seed: int) -> list[Recording]:
    """Single digits by `count` voices, to be joined as the recordings of real speakers are.

    Their point is that the ends of each digit are known, which nobody says of a whole string.
    """
    spoken = _cached(cache / f"speakers-{seed}-{count}.npy", lambda: _training_speakers((seed, 2), count))
    return [
        Recording(f"{text.voice} {number // 10}", text.digits[0], as_float(text.samples), SAMPLE_RATE)
        for number, text in enumerate(spoken)
    ]


def held_out_strings(count: int, seed: int, voices: VoiceSet = "training") -> list[Utterance]:
    """`count` synthetic strings of 3 to 8 digits whose texts are held out, by the given voices."""
    random = np.random.default_rng((seed, 3))
    strings: list[Utterance] = []
    for number in range(count):
        length = SHORTEST_HELD_OUT + number % (LONGEST_STRING - SHORTEST_HELD_OUT + 1)
        digits = draw_held_out_digits(random, length)
        voice = draw_voice(random, _FLITE_SHARE, voices)
        strings.append(Utterance(speak(voice, digits, _draw_separator(random)), digits))
    return strings
