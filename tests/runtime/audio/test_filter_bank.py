"""Test log-mel filter banks against transformers' `spectrogram`."""

import numpy as np
import pytest
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from signals import RATE, after_silence, noise, quantised, speech, tone
from speech_runtime import AudioError
from speech_runtime.audio import Samples
from speech_runtime.audio.features.filter_bank import Window, frame_count, log_mel_filter_bank

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")

SIGNALS = {
    "noise": noise(40000),
    "barely audible noise": noise(40000, 1e-5),
    "noise on an offset": noise(40000, 1e-3, offset=0.5),
    "tone": tone(40000),
    "full-scale tone": tone(40000, 1000, 1.0),
    "quantised tone": quantised(tone(40000)),
    "square wave": np.sign(tone(40000, 100)),
    "digital silence, then noise": after_silence(noise(40000)),
    "offset, then noise": after_silence(noise(40000), 0.3),
    "single bits": (noise(40000) > 0.3) / np.float32(32768),
    "one window": noise(400),
    "a window and all but the next hop": noise(559),
    "exactly one block of frames": noise(400 + 127 * 160),
    "a block of frames and one": noise(400 + 128 * 160),
}


def reference(samples: Samples, bands: int, rate: int, window: Window) -> Samples:
    filters = mel_filter_bank(257, bands, 20, rate // 2, rate, mel_scale="kaldi", triangularize_in_mel_space=True)
    features: Samples = spectrogram(
        samples,
        window_function(400, window, periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    )
    return features.T


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize(("bands", "window", "scale"), [(80, "povey", 2**15), (128, "hann", 1)])
def test_equal_to_transformers(name: str, bands: int, window: Window, scale: int) -> None:
    samples = SIGNALS[name].astype(np.float32) * np.float32(scale)
    features = log_mel_filter_bank(samples, bands, RATE, window)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, reference(samples, bands, RATE, window), rtol=0, atol=1e-5)
    assert len(features) == frame_count(samples.size, RATE, 1, "clip")


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_speech_at_any_rate(rate: int) -> None:
    for samples in speech():
        features = log_mel_filter_bank(samples, 40, rate, "povey")
        np.testing.assert_allclose(features, reference(samples, 40, rate, "povey"), rtol=0, atol=1e-5)


def test_too_short_a_clip_is_named_with_what_it_needs() -> None:
    with pytest.raises(AudioError, match=r"clip 3: has 559 samples \(0.035 s\).* at least 560 \(0.035 s\)"):
        frame_count(559, RATE, 2, "clip 3")
