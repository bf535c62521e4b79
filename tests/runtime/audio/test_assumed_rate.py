"""Test that arrays without a sampling rate are warned of where they look as if they had another one than the model."""

import warnings
from typing import Any

import numpy as np
import pytest

from speech_runtime import AudioError
from speech_runtime.audio import clip_of


def noise(samples: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(dtype)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (
            noise(20000, np.float64),
            "it is of float64, as libraries return what they read from a file, at the rate of the file",
        ),
        (noise(44100), "its length is a whole number of seconds at 44,100 Hz"),
        (noise(3 * 22050), "its length is a whole number of seconds at 22,050 Hz"),
        (noise(5 * 11025), "its length is a whole number of seconds at 11,025 Hz"),
    ],
)
def test_an_array_that_looks_like_another_rate_is_warned_of(samples: np.ndarray, reason: str) -> None:
    with pytest.warns(UserWarning, match=f"taken to have the model's 16,000 Hz, but {reason}; give sampling_rate="):
        loaded = clip_of(samples, None, "audio").load(16000)
    np.testing.assert_array_equal(loaded, samples.astype(np.float32))


@pytest.mark.parametrize("rate", [16000, 24000, 8000])
@pytest.mark.parametrize("samples", [1, 7999, 8000, 16000, 20000, 24000, 48000, 96000])
def test_other_arrays_are_taken_in_silence(samples: int, rate: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip_of(np.append(noise(samples), np.float32(0.1)), None, "audio").load(rate)
        clip_of(np.append(noise(samples - 1), np.float32(0.9)), None, "audio").load(rate) if samples > 1 else None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_rate_that_is_given_is_believed(dtype: Any) -> None:
    samples = noise(44100, dtype)
    forms: list[tuple[Any, int | None]] = [
        (samples, 16000),
        ({"array": samples, "sampling_rate": 16000}, None),
        ((16000, samples), None),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for audio, rate in forms:
            assert clip_of(audio, rate, "audio").load(16000).size == samples.size


def test_a_model_of_that_rate_is_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip_of(noise(44100), None, "audio").load(44100)
        clip_of(noise(11025), None, "audio").load(22050)


def test_integers_are_refused_with_the_rate_among_the_remedies() -> None:
    integers = (noise(4000) * 32767).astype(np.int16)
    with pytest.raises(AudioError, match=r"got int16; convert first.*give the rate of their file as sampling_rate"):
        clip_of(integers, None, "audio").load(16000)
    with pytest.raises(AudioError, match=r"got int16; convert first, .* / 32768$"):
        clip_of(integers, 8000, "audio").load(16000)
