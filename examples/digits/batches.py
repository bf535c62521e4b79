"""Training batches: a random mix of real and synthetic strings, alike in length within a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from augmentation import change_speed, colour, join_takes, noise_bank, through_telephone
from corpus import SAMPLE_RATE, Recording, Samples, Utterance, by_speaker, load_recordings
from digit_strings import LONGEST_STRING, draw_training_digits
from synthetic import SpokenText, as_float, training_speakers, training_strings

_REAL_SHARE = 0.68
_WHOLE_STRING_SHARE = 0.75
_TELEPHONE_SHARE = 0.4
_BATCHES_PER_POOL = 8
_LONGEST_SECONDS = 9.0


Takes = dict[int, list[Recording]]
"""One speaker's recordings of each digit."""


@dataclass(frozen=True)
class SyntheticSize:
    """The amount of synthetic speech: whole strings, and voices that say single digits."""

    strings: int
    speakers: int


@dataclass(frozen=True)
class TrainingData:
    """Everything batches are drawn from; the noise is float32 at 16 kHz with unit RMS."""

    real: list[Takes]
    synthetic_speakers: list[Takes]
    synthetic_strings: list[SpokenText]
    noise: list[Samples]


def load_training_data(archive: Path, cache: Path, size: SyntheticSize, seed: int, processes: int) -> TrainingData:
    """Read the recordings, and synthesise the rest unless it is cached."""
    return TrainingData(
        real=list(by_speaker(load_recordings(archive, "train")).values()),
        synthetic_speakers=list(by_speaker(training_speakers(cache, size.speakers, seed)).values()),
        synthetic_strings=training_strings(cache, size.strings, seed, processes),
        noise=noise_bank(seed),
    )


def longest_at(step: int) -> int:
    """Digits a string may have at this step: alignment is learnt on short ones first."""
    if step < 150:
        return 2
    return 4 if step < 400 else LONGEST_STRING


def _draw_whole(random: np.random.Generator, data: TrainingData, longest: int) -> Utterance:
    while True:
        spoken = data.synthetic_strings[int(random.integers(len(data.synthetic_strings)))]
        if len(spoken.digits) <= longest:
            return Utterance(change_speed(random, as_float(spoken.samples)), spoken.digits)


def _draw_joined(random: np.random.Generator, speakers: list[Takes], longest: int) -> Utterance:
    takes = speakers[int(random.integers(len(speakers)))]
    digits = draw_training_digits(random, longest)
    chosen = [takes[digit][int(random.integers(len(takes[digit])))] for digit in digits]
    return join_takes(random, chosen, digits)


def _draw_synthetic(random: np.random.Generator, data: TrainingData, longest: int) -> Utterance:
    if random.random() < _WHOLE_STRING_SHARE:
        return _draw_whole(random, data, longest)
    return _draw_joined(random, data.synthetic_speakers, longest)


def draw_utterance(random: np.random.Generator, data: TrainingData, longest: int) -> Utterance:
    """An augmented string of at most `longest` digits and nine seconds."""
    while True:
        if random.random() < _REAL_SHARE:
            drawn = _draw_joined(random, data.real, longest)
            samples = drawn.samples
        else:
            drawn = _draw_synthetic(random, data, longest)
            telephone = random.random() < _TELEPHONE_SHARE
            samples = through_telephone(drawn.samples) if telephone else drawn.samples
        if len(samples) <= _LONGEST_SECONDS * SAMPLE_RATE:
            return Utterance(colour(random, samples, data.noise), drawn.digits, drawn.spans)


def _draw_pool(random: np.random.Generator, data: TrainingData, longest: int, seconds: float) -> list[list[Utterance]]:
    """Several batches of about `seconds` of speech each, cut from strings in the order of their lengths."""
    wanted = int(seconds * SAMPLE_RATE)
    drawn: list[Utterance] = []
    total = 0
    while total < wanted * _BATCHES_PER_POOL:
        drawn.append(draw_utterance(random, data, longest))
        total += len(drawn[-1].samples)
    drawn.sort(key=lambda utterance: len(utterance.samples))
    pool: list[list[Utterance]] = [[] for _ in range(_BATCHES_PER_POOL)]
    position = 0
    for utterance in drawn:
        pool[position * _BATCHES_PER_POOL // total].append(utterance)
        position += len(utterance.samples)
    return [pool[number] for number in random.permutation(_BATCHES_PER_POOL)]


def training_batches(
    data: TrainingData, seed: int, process: int, first_step: int, seconds: float
) -> Iterator[list[Utterance]]:
    """The batches of one process from `first_step` on.

    A pool depends on nothing but its number, so a run that is resumed gets the batches it would have had.
    """
    pool_number, skipped = divmod(first_step, _BATCHES_PER_POOL)
    while True:
        random = np.random.default_rng((seed, process, pool_number))
        pool = _draw_pool(random, data, longest_at(pool_number * _BATCHES_PER_POOL), seconds)
        yield from pool[skipped:]
        pool_number, skipped = pool_number + 1, 0
