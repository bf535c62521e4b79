"""Test that clips which a feature extractor would turn into silence are refused, and no others."""

import numpy as np
import pytest
from transformers import Wav2Vec2FeatureExtractor

from speech_runtime import AudioError
from speech_runtime.audio.features import (
    FeatureExtractor,
    ParakeetExtractor,
    SeamlessExtractor,
    SpectrogramExtractor,
    SpeechToTextExtractor,
    WaveformExtractor,
    WhisperExtractor,
)

NOISE = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)


def spiked(height: float, count: int = 1) -> np.ndarray:
    clip = NOISE.copy()
    clip[:: clip.size // count][:count] = height
    return clip


@pytest.mark.parametrize(
    "extractor",
    [
        WaveformExtractor(),
        WaveformExtractor(do_normalize=False),
        SpectrogramExtractor(),
        WhisperExtractor(),
        ParakeetExtractor(),
    ],
)
@pytest.mark.parametrize("scale", [1e-5, 1e-6, 1e-20])
def test_too_quiet(extractor: FeatureExtractor, scale: float) -> None:
    with pytest.raises(AudioError, match="clip: is too quiet: the standard deviation .*; amplify it"):
        extractor.check_level(NOISE * np.float32(scale) + np.float32(0.0), "clip")


@pytest.mark.parametrize(
    "extractor", [WaveformExtractor(do_normalize=False), SpectrogramExtractor(), WhisperExtractor()]
)
def test_another_scale(extractor: FeatureExtractor) -> None:
    with pytest.raises(AudioError, match=r"clip: is too loud: .* is 3\.\d+e\+03, .*; divide its samples by .* 32768"):
        extractor.check_level(NOISE * np.float32(32768), "clip")
    extractor.check_level(np.sign(NOISE), "clip")


@pytest.mark.parametrize(
    "clip", [spiked(1e5), spiked(-1e5), spiked(100.0), spiked(1e4, 20)], ids=["up", "down", "100", "20"]
)
def test_spikes(clip: np.ndarray) -> None:
    with pytest.raises(AudioError, match=r"clip: has \d+ samples beyond full scale.*limit its samples to ±1"):
        WaveformExtractor().check_level(clip, "clip")


@pytest.mark.parametrize(
    "clip",
    [NOISE, NOISE * 1e-2, NOISE * 32768, NOISE * 2**31, spiked(1.0), spiked(3.0), NOISE + 0.5],
    ids=["plain", "quiet", "int16", "int32", "click", "overshoot", "offset"],
)
def test_what_can_be_heard_passes(clip: np.ndarray) -> None:
    WaveformExtractor().check_level(clip.astype(np.float32), "clip")


@pytest.mark.parametrize("scale", [1e-6, 1e-5, 1e-4, 1e-2, 1.0])
def test_what_is_refused_is_what_transformers_makes_silence_of(scale: float) -> None:
    clip = NOISE * np.float32(scale)
    (made,) = Wav2Vec2FeatureExtractor(do_normalize=True)(clip, sampling_rate=16000, return_tensors="np")[
        "input_values"
    ]
    try:
        WaveformExtractor().check_level(clip, "clip")
    except AudioError:
        assert made.std() < 0.31
    else:
        assert made.std() > 0.31


@pytest.mark.parametrize("extractor", [SeamlessExtractor(), SpeechToTextExtractor()])
def test_logarithms_take_any_level(extractor: SeamlessExtractor | SpeechToTextExtractor) -> None:
    quiet = NOISE * np.float32(1e-4)
    extractor.check_level(quiet, "clip")
    np.testing.assert_allclose(extractor([quiet])[0], extractor([NOISE])[0], atol=1e-2)
