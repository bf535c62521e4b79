"""Augment training strings: other voices, rooms and devices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr

from corpus import SAMPLE_RATE, Recording, Samples, Utterance, draw_pauses, join
from digit_strings import Digits

_NOISE_SECONDS = 60
_TELEPHONE_RATE = 8_000


def noise_bank(seed: int) -> list[Samples]:
    """A minute each of white, pink and brown noise, float32 at 16 kHz with unit RMS."""
    random = np.random.default_rng((seed, 7))
    length = _NOISE_SECONDS * SAMPLE_RATE
    frequencies = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 40.0)
    bank: list[Samples] = []
    for exponent in (0.0, 0.5, 1.0):
        spectrum = np.fft.rfft(random.standard_normal(length)) / frequencies**exponent
        noise = np.fft.irfft(spectrum, length)
        bank.append((noise / noise.std()).astype(np.float32))
    return bank


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples)) + 1e-12))


def join_takes(random: np.random.Generator, takes: Sequence[Recording], digits: Digits) -> Utterance:
    """One speaker's takes as a string: 0.85 to 1.18 times as fast, at various levels, with random pauses.

    Half of the strings keep the levels the takes were recorded at, the others start from equal ones. Not
    all of them may: a speaker whose levels differ much is misheard by a model that never met such strings.
    """
    speed = random.uniform(0.85, 1.18)
    equal_levels = random.random() < 0.5
    pieces: list[Samples] = []
    for take in takes:
        rate = take.rate * speed * random.uniform(0.96, 1.04)
        piece = soxr.resample(take.samples, rate, SAMPLE_RATE, quality="MQ")
        level = np.float32(10 ** (random.uniform(-4, 4) / 20))
        pieces.append(piece * level / np.float32(_rms(piece) if equal_levels else 1.0))
    samples, spans = join(pieces, draw_pauses(random, len(digits), SAMPLE_RATE))
    return Utterance(samples, digits, spans)


def change_speed(random: np.random.Generator, samples: Samples) -> Samples:
    """The string 0.85 to 1.18 times as fast (and as high), with up to 250 ms of silence at the ends."""
    speed = random.uniform(0.85, 1.18)
    resampled = soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE, quality="MQ")
    joined, _ = join([resampled], draw_pauses(random, 1, SAMPLE_RATE))
    return joined


def through_telephone(samples: Samples) -> Samples:
    """Lose what is above 4 kHz."""
    narrow = soxr.resample(samples, SAMPLE_RATE, _TELEPHONE_RATE, quality="MQ")
    heard: Samples = soxr.resample(narrow, _TELEPHONE_RATE, SAMPLE_RATE, quality="MQ")
    return heard[: len(samples)]


def colour(random: np.random.Generator, samples: Samples, bank: Sequence[Samples]) -> Samples:
    """Tilt the spectrum, and add noise at 8 to 40 dB below the speech to three strings of four."""
    tilted = samples.copy()
    tilted[1:] -= np.float32(random.uniform(-0.5, 0.7)) * samples[:-1]
    if random.random() < 0.75:
        noise = bank[int(random.integers(len(bank)))]
        start = int(random.integers(len(noise) - len(tilted)))
        gain = _rms(tilted) * 10 ** (-random.uniform(8, 40) / 20)
        tilted += np.float32(gain) * noise[start : start + len(tilted)]
    return tilted
