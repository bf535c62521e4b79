"""Test `OnnxSpeechSeq2Seq.load`: clips that the model cannot take are refused one by one, before encoding."""

from types import SimpleNamespace

import numpy as np
import pytest

from signals import RATE, noise
from speech_runtime import AudioError, BundleError, OnnxSpeechSeq2Seq
from speech_runtime.audio import Samples
from speech_runtime.audio.features import (
    FeatureExtractor,
    SeamlessExtractor,
    SpectrogramExtractor,
    SpeechToTextExtractor,
    WaveformExtractor,
    check_fit,
)
from speech_runtime.bundle.model_facts import EncoderFacts
from speech_runtime.input_checks import check_inputs

WAVEFORM = EncoderFacts("input_values", None, heads=4, min_length=400, max_length=None, stride=320)
STACKED = EncoderFacts("input_features", 160, heads=4, min_length=3, max_length=500, stride=1)
SPECTROGRAM = EncoderFacts("input_values", 128, heads=4, min_length=1024, max_length=1024, stride=1)
PAIRS = [(WaveformExtractor(), WAVEFORM), (SeamlessExtractor(), STACKED), (SpectrogramExtractor(), SPECTROGRAM)]


def model(extractor: FeatureExtractor, encoder: EncoderFacts) -> OnnxSpeechSeq2Seq:
    manifest = SimpleNamespace(encoder=encoder, decoder=SimpleNamespace(cache="growing"))
    return OnnxSpeechSeq2Seq(None, manifest, None, extractor, None)


@pytest.mark.parametrize(("extractor", "encoder"), PAIRS)
def test_samples_become_input_that_the_encoder_takes(extractor: FeatureExtractor, encoder: EncoderFacts) -> None:
    loaded = [model(extractor, encoder).load(clip) for clip in (noise(9000), noise(16000).astype(np.float64))]
    assert all(clip.dtype == np.float32 for clip in loaded)
    check_fit(extractor, encoder)
    check_inputs(*extractor(loaded), encoder)


@pytest.mark.parametrize(
    ("extractor", "encoder", "samples", "problem"),
    [
        (WaveformExtractor(), WAVEFORM, noise(399), "has 399 samples, the encoder needs at least 400"),
        (SeamlessExtractor(), STACKED, noise(559), r"has 559 samples \(0.035 s\), its features need at least 560"),
        (SeamlessExtractor(), STACKED, noise(400 + 4 * 160), "has 2 feature frames, the encoder needs at least 3"),
        (SeamlessExtractor(), STACKED, noise(11 * RATE), "has 549 feature frames, .* 500 at most"),
        (SpectrogramExtractor(), SPECTROGRAM, noise(399), "its features need at least 400"),
        (SpectrogramExtractor(), SPECTROGRAM, noise(11 * RATE), r"lasts 11.00 s .*, the model takes at most 10.26 s"),
        (SeamlessExtractor(), STACKED, noise(RATE).astype(np.float64) * 1e39, "NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_named(
    extractor: FeatureExtractor, encoder: EncoderFacts, samples: Samples, problem: str
) -> None:
    with pytest.raises(AudioError, match=f"audio\\[3\\]: .*{problem}"):
        model(extractor, encoder).load(samples, name="audio[3]")


@pytest.mark.parametrize(
    ("extractor", "encoder", "problem"),
    [
        (SpeechToTextExtractor(), STACKED, "frames of 80 features, the encoder takes frames of 160 features"),
        (WaveformExtractor(), STACKED, "waveforms, the encoder takes frames of 160 features"),
        (SeamlessExtractor(), WAVEFORM, "frames of 160 features, the encoder takes waveforms"),
    ],
)
def test_an_extractor_of_another_model_is_refused(
    extractor: FeatureExtractor, encoder: EncoderFacts, problem: str
) -> None:
    with pytest.raises(BundleError, match=problem):
        check_fit(extractor, encoder)
