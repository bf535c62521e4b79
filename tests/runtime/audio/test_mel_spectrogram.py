"""Test mel spectrograms against torch's `stft` and transformers' filters."""

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from signals import noise, quantised, speech, tone
from speech_runtime.audio import Samples
from speech_runtime.audio.features.filter_bank import FRAMES_AT_ONCE
from speech_runtime.audio.features.mel_spectrogram import mel_spectrogram, slaney_filters

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")

HIGHEST = {16000: 8000, 44100: 22050.0, 800: 400, 8000: 8000}


@pytest.mark.parametrize("rate", HIGHEST)
@pytest.mark.parametrize(("bands", "n_fft"), [(1, 2), (80, 400), (128, 400), (128, 512)])
def test_filters_equal_those_of_transformers(bands: int, n_fft: int, rate: int) -> None:
    expected = mel_filter_bank(n_fft // 2 + 1, bands, 0, HIGHEST[rate], rate, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(slaney_filters(bands, n_fft, rate, HIGHEST[rate]), expected.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "samples",
    [speech()[0], noise(40000), quantised(tone(40000)), noise(400), noise(400 + FRAMES_AT_ONCE * 160)],
    ids=["speech", "noise", "tone", "one frame", "a block and a frame"],
)
@pytest.mark.parametrize("hop_length", [160, 401])
def test_energies_equal_those_of_torch(samples: Samples, hop_length: int) -> None:
    window, filters = np.hanning(400), slaney_filters(80, 400, 16000, 8000)
    spectrum = torch.stft(
        torch.from_numpy(samples).double(),
        400,
        hop_length,
        window=torch.from_numpy(window),
        center=False,
        return_complex=True,
    )
    expected = filters @ spectrum.abs().numpy() ** 2
    np.testing.assert_allclose(mel_spectrogram(samples, window, hop_length, filters), expected.T, rtol=1e-9, atol=1e-20)
