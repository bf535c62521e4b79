"""Audio signals to test feature extractors on: those of microphones, and those that are hard on arithmetic."""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from conftest import CLIPS
from speech_runtime.audio import Samples, read_audio

RATE = 16000


def noise(length: int, level: float = 0.1, offset: float = 0.0) -> Samples:
    return (np.random.default_rng(length).standard_normal(length) * level + offset).astype(np.float32)


def tone(length: int, frequency: float = 440, level: float = 0.5) -> Samples:
    return (level * np.sin(2 * np.pi * frequency * np.arange(length) / RATE)).astype(np.float32)


def quantised(samples: Samples) -> Samples:
    """As from a 16-bit file."""
    return (np.round(samples * 32767) / 32768).astype(np.float32)


def after_silence(samples: Samples, level: float = 0.0) -> Samples:
    """Nothing at all, or a constant offset, and then the rest of the clip."""
    return np.where(np.arange(samples.size) < samples.size // 2, np.float32(level), samples)


def speech() -> list[Samples]:
    """The clips of the bundled model."""
    return [read_audio(path, RATE) for path in sorted(CLIPS.glob("[0-9]*"))]


def batches(shortest: int) -> st.SearchStrategy[list[Samples]]:
    """One to four clips of noise or tones in noise, loud or quiet, some of them quantised or half silent."""
    make: list[Callable[[int], Samples]] = [
        noise,
        lambda length: noise(length, 1e-4),
        lambda length: noise(length, 0.01, offset=0.3),
        lambda length: quantised(noise(length, 0.01)),
        lambda length: after_silence(noise(length)),
        lambda length: tone(length) + noise(length, 0.01),
    ]
    clip = st.tuples(st.sampled_from(make), st.integers(shortest, 30000)).map(lambda made: made[0](made[1]))
    return st.lists(clip, min_size=1, max_size=4)
