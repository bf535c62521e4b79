"""Test feature extractors against transformers, each built from the configuration that transformers writes."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from transformers import (
    ASTFeatureExtractor,
    CohereAsrFeatureExtractor,
    ParakeetFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Speech2TextFeatureExtractor,
    SpeechT5FeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from signals import RATE, batches, noise, speech, tone
from speech_runtime import AudioError, BundleError
from speech_runtime.audio import Samples
from speech_runtime.audio.features import (
    EXTRACTORS,
    CohereAsrExtractor,
    FeatureExtractor,
    ParakeetExtractor,
    WaveformExtractor,
    WhisperExtractor,
    read_feature_extractor,
)

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")

TWO_FRAMES = 400 + 160
AST_SAMPLES = 400 + 1024 * 160 - 1
BOTH = st.booleans()

SEAMLESS = st.builds(
    SeamlessM4TFeatureExtractor,
    num_mel_bins=st.sampled_from([40, 80]),
    padding_value=st.sampled_from([0.0, 1]),
    stride=st.sampled_from([2, 2, 3, 4]),
    return_attention_mask=BOTH,
)
SPEECH_TO_TEXT = st.builds(
    Speech2TextFeatureExtractor,
    num_mel_bins=st.sampled_from([40, 80]),
    padding_value=st.sampled_from([0.0, -1.0]),
    do_ceptral_normalize=BOTH,
    normalize_means=BOTH,
    normalize_vars=BOTH,
)
SPECTROGRAM = st.builds(
    ASTFeatureExtractor,
    num_mel_bins=st.sampled_from([64, 128]),
    max_length=st.sampled_from([200, 1024]),
    do_normalize=BOTH,
    mean=st.sampled_from([-4.2677393, 0.5]),
)
WAVEFORM = st.builds(
    Wav2Vec2FeatureExtractor,
    do_normalize=BOTH,
    return_attention_mask=BOTH,
    padding_value=st.sampled_from([0.0, -1.0]),
)
SPEECHT5 = st.builds(
    SpeechT5FeatureExtractor,
    do_normalize=BOTH,
    return_attention_mask=BOTH,
    padding_value=st.sampled_from([0.0, -1.0]),
)
NEMO: dict[str, st.SearchStrategy[Any]] = {
    "feature_size": st.sampled_from([40, 80, 128]),
    "sampling_rate": st.sampled_from([16000, 16000, 24000]),
    "hop_length": st.sampled_from([160, 160, 147]),
    "n_fft": st.sampled_from([512, 512, 600]),
    "win_length": st.sampled_from([400, 400, 399, 512]),
    "preemphasis": st.sampled_from([0.97, 0.97, 0.0, None]),
}
PARAKEET = st.builds(ParakeetFeatureExtractor, **NEMO)
COHERE = st.builds(
    CohereAsrFeatureExtractor,
    dither=st.sampled_from([1e-5, 1e-5, 0.1, 0.0, -1.0]),
    max_audio_clip_s=st.sampled_from([2.0, 35.0]),
    **NEMO,
)
WHISPER = st.builds(
    WhisperFeatureExtractor,
    feature_size=st.sampled_from([40, 80, 128]),
    sampling_rate=st.sampled_from([16000, 16000, 24000]),
    hop_length=st.sampled_from([160, 160, 147]),
    chunk_length=st.sampled_from([2, 30]),
    n_fft=st.sampled_from([400, 400, 512]),
    padding_value=st.sampled_from([0.0, 0.0, 0.5]),
)
quick = settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))


def needs_librosa() -> bool:
    """Return true if transformers makes the filters of NeMo with librosa, as 5.20 does, and it is not installed."""
    try:
        ParakeetFeatureExtractor()
    except ImportError:
        return True
    return False


nemo = pytest.mark.skipif(needs_librosa(), reason="this transformers makes the filters of NeMo with librosa")


def read(config: dict[str, Any]) -> FeatureExtractor:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "preprocessor_config.json"
        path.write_text(json.dumps(config))
        return read_feature_extractor(path)


def assert_equal(reference: Any, clips: list[Samples]) -> None:
    expected = reference(clips, sampling_rate=reference.sampling_rate, padding=True, return_tensors="np")
    extractor = read(json.loads(reference.to_json_string()))
    values, mask = extractor(clips)
    np.testing.assert_allclose(values, expected[reference.model_input_names[0]], rtol=0, atol=1e-4)
    if "attention_mask" in expected:
        np.testing.assert_array_equal(mask, expected.attention_mask)
    else:
        assert mask.all()
    assert mask.shape == values.shape[:2]
    assert values.dtype == np.float32
    assert mask.dtype == np.int64
    assert extractor.width == (values.shape[2] if values.ndim == 3 else None)
    if "attention_mask" in expected:
        assert extractor.input_length(clips[0].size) == extractor(clips[:1])[1].sum()


@quick
@given(reference=SEAMLESS, clips=batches(shortest=2 * TWO_FRAMES))
def test_seamless(reference: SeamlessM4TFeatureExtractor, clips: list[Samples]) -> None:
    assert_equal(reference, clips)


@quick
@given(reference=SPEECH_TO_TEXT, clips=batches(shortest=TWO_FRAMES))
def test_speech_to_text(reference: Speech2TextFeatureExtractor, clips: list[Samples]) -> None:
    assert_equal(reference, clips)


@quick
@given(reference=SPECTROGRAM, clips=batches(shortest=400))
def test_spectrogram(reference: ASTFeatureExtractor, clips: list[Samples]) -> None:
    assert_equal(reference, clips)


@quick
@given(reference=WAVEFORM, clips=batches(shortest=1))
def test_waveform(reference: Wav2Vec2FeatureExtractor, clips: list[Samples]) -> None:
    assert_equal(reference, clips)


@quick
@given(reference=SPEECHT5, clips=batches(shortest=1))
def test_speecht5(reference: SpeechT5FeatureExtractor, clips: list[Samples]) -> None:
    assert_equal(reference, clips)


def in_float64(reference: Any) -> Any:
    """Let transformers compute in float64: in bands without sound, the normalisation scales its rounding errors up."""
    features = reference._torch_extract_fbank_features

    def exact_features(waveform: torch.Tensor, device: str) -> torch.Tensor:
        torch.set_default_dtype(torch.float64)
        try:
            made: torch.Tensor = features(waveform.double(), device)
        finally:
            torch.set_default_dtype(torch.float32)
        return made

    reference.mel_filters = reference.mel_filters.double()
    reference._torch_extract_fbank_features = exact_features
    return reference


def assert_equal_to_nemo(reference: Any, clips: list[Samples]) -> None:
    extractor = read(json.loads(reference.to_json_string()))
    expected = in_float64(reference)(clips, sampling_rate=reference.sampling_rate, return_tensors="np")
    values, mask = extractor(clips)
    np.testing.assert_allclose(values, expected.input_features, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(mask, expected.attention_mask)
    assert values.dtype == np.float32
    assert mask.dtype == np.int64
    assert extractor.width == values.shape[2]
    assert extractor.input_length(clips[0].size) == mask[0].sum()


@nemo
@quick
@given(reference=PARAKEET, clips=batches(shortest=320))
def test_parakeet(reference: ParakeetFeatureExtractor, clips: list[Samples]) -> None:
    assert_equal_to_nemo(reference, clips)


@nemo
@quick
@given(reference=COHERE, clips=batches(shortest=1600))
def test_cohere_asr(reference: CohereAsrFeatureExtractor, clips: list[Samples]) -> None:
    assert_equal_to_nemo(reference, clips)


@nemo
@pytest.mark.parametrize("kind", [ParakeetFeatureExtractor, CohereAsrFeatureExtractor])
def test_nemo_of_speech(kind: Any) -> None:
    assert_equal_to_nemo(kind(), speech())
    with_sound_in_every_band = speech()[:1]
    assert_equal(kind(), with_sound_in_every_band)


@nemo
@pytest.mark.parametrize("kind", [ParakeetFeatureExtractor, CohereAsrFeatureExtractor])
def test_one_frame_of_nemo_cannot_be_normalised(kind: Any) -> None:
    assert_equal_to_nemo(kind(), [noise(320), noise(479)])
    with pytest.raises(AudioError, match=r"clip 1: has 319 samples .* at least 320"):
        read(json.loads(kind().to_json_string()))([noise(320), noise(319)])


def test_silence_of_parakeet_is_zero() -> None:
    values, mask = ParakeetExtractor()([np.zeros(RATE, dtype=np.float32)])
    assert mask.sum() == 100
    np.testing.assert_allclose(values, 0, atol=1e-6)


@nemo
def test_cohere_asr_refuses_what_transformers_splits() -> None:
    reference = CohereAsrFeatureExtractor(max_audio_clip_s=1.5)
    whole, longer = noise(24000), noise(24001)
    assert_equal_to_nemo(reference, [whole])
    assert len(reference([longer], sampling_rate=RATE, return_tensors="np").input_features) == 2
    with pytest.raises(AudioError, match=r"clip 0: lasts 1.50 s \(24,001 samples\), the model takes at most 1.50 s"):
        CohereAsrExtractor(max_audio_clip_s=1.5)([longer])


def assert_equal_to_whisper(reference: WhisperFeatureExtractor, clips: list[Samples]) -> None:
    """The reference computes with torch, as transformers does by default."""
    expected = reference(clips, sampling_rate=reference.sampling_rate, return_attention_mask=True, return_tensors="np")
    extractor = read(json.loads(reference.to_json_string()))
    values, mask = extractor(clips)
    np.testing.assert_allclose(values, expected.input_features.transpose(0, 2, 1), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(mask, expected.attention_mask)
    assert values.dtype == np.float32
    assert mask.dtype == np.int64
    assert extractor.width == values.shape[2]
    assert extractor.input_length(clips[0].size) == values.shape[1]


@quick
@given(reference=WHISPER, clips=batches(shortest=1))
def test_whisper(reference: WhisperFeatureExtractor, clips: list[Samples]) -> None:
    assert_equal_to_whisper(reference, clips)


@pytest.mark.parametrize("before_the_end", [0, 1, 40, 199, 200, 201, 359, 360, 361, 399, 400, 401])
def test_the_end_of_whispers_window_is_mirrored(before_the_end: int) -> None:
    clip = noise(2 * RATE - before_the_end)
    assert_equal_to_whisper(WhisperFeatureExtractor(chunk_length=2), [clip])


@pytest.mark.parametrize("clip", [np.zeros(RATE), np.ones(RATE), np.sign(tone(RATE))], ids=["zeros", "ones", "square"])
def test_whisper_of_signals_without_content(clip: Samples) -> None:
    assert_equal_to_whisper(WhisperFeatureExtractor(), [clip.astype(np.float32)])


@pytest.mark.parametrize("bands", [80, 128])
def test_whisper_of_speech(bands: int) -> None:
    reference = WhisperFeatureExtractor(feature_size=bands)
    assert_equal_to_whisper(reference, speech())
    clip = speech()[0]
    padded = np.pad(clip, (0, reference.n_samples - clip.size))
    with_numpy = reference._np_extract_fbank_features(padded[None], "cpu")
    values, _ = WhisperExtractor(feature_size=bands)([clip])
    np.testing.assert_allclose(values, with_numpy.transpose(0, 2, 1), rtol=0, atol=1e-6)


def test_whisper_refuses_what_transformers_cuts_off() -> None:
    extractor = WhisperExtractor()
    assert extractor.input_length(30 * RATE) == 3000
    message = r"lasts 31.00 s \(496,000 samples\), the model takes at most 30.00 s \(480,000 samples\); split the audio"
    with pytest.raises(AudioError, match=f"talk.wav: {message}"):
        extractor.input_length(31 * RATE, "talk.wav")
    with pytest.raises(AudioError, match=f"clip 1: {message}"):
        extractor([noise(RATE), noise(31 * RATE)])


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (SeamlessM4TFeatureExtractor, {}),
        (Speech2TextFeatureExtractor, {}),
        (ASTFeatureExtractor, {}),
        (Wav2Vec2FeatureExtractor, {"return_attention_mask": True}),
        (SpeechT5FeatureExtractor, {"do_normalize": True}),
    ],
)
def test_speech(kind: Any, changes: dict[str, Any]) -> None:
    clips = speech()
    assert_equal(kind(**changes), clips)
    assert_equal(kind(**changes), clips[:1])


def test_a_seamless_clip_of_an_odd_number_of_frames_loses_the_last_one_to_the_mask() -> None:
    extractor = read({"feature_extractor_type": "SeamlessM4TFeatureExtractor"})
    values, mask = extractor([noise(TWO_FRAMES + 160)])
    assert values.shape == (1, 2, 160)
    assert mask.tolist() == [[1, 0]]


@pytest.mark.parametrize("kind", ["SeamlessM4TFeatureExtractor", "Speech2TextFeatureExtractor"])
def test_one_frame_cannot_be_normalised(kind: str) -> None:
    with pytest.raises(AudioError, match=r"clip 1: has 559 samples .* at least 560"):
        read({"feature_extractor_type": kind})([noise(600), noise(559)])


def test_a_band_that_never_changes_is_not_divided_by_zero() -> None:
    frames = np.tile(tone(160, 100), 20)
    values, _ = read({"feature_extractor_type": "Speech2TextFeatureExtractor"})([frames])
    assert np.abs(values).max() < 1e-4


def test_a_spectrogram_refuses_what_transformers_cuts_off() -> None:
    extractor = read({"feature_extractor_type": "ASTFeatureExtractor"})
    assert extractor.input_length(AST_SAMPLES) == 1024
    assert_equal(ASTFeatureExtractor(), [noise(AST_SAMPLES)])
    with pytest.raises(AudioError, match=r"clip 0: lasts 10.27 s .*, the model takes at most 10.26 s"):
        extractor([noise(AST_SAMPLES + 1)])
    with pytest.raises(AudioError, match=r"talk.wav: lasts 60.00 s"):
        extractor.input_length(60 * RATE, "talk.wav")


def test_fields_that_change_nothing_are_left_alone() -> None:
    config = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "processor_class": "Wav2Vec2Processor"}
    assert read({**config, "sampling_rate": 8000, "padding_value": 1}) == WaveformExtractor(8000, padding_value=1.0)


@pytest.mark.parametrize(
    ("kind", "values", "problem"),
    [
        ("Wav2Vec2", {"padding_side": "left"}, "padding_side is 'left', expected 'right'"),
        ("Wav2Vec2", {"feature_size": 2}, "feature_size is 2"),
        ("Wav2Vec2", {"sampling_rate": 0}, "sampling_rate is 0, it must be at least 1"),
        ("Wav2Vec2", {"sampling_rate": "fast", "do_normalize": 1}, "sampling_rate is 'fast'.*; do_normalize is 1"),
        ("SeamlessM4T", {"padding_side": "left"}, "padding_side is 'left'"),
        ("SeamlessM4T", {"stride": 1, "num_mel_bins": 0}, "num_mel_bins is 0.*; stride is 1, it must be at least 2"),
        ("SeamlessM4T", {"feature_size": 1}, "feature_size is 1"),
        ("Speech2Text", {"sampling_rate": 8000}, "sampling_rate is 8000, expected 16000"),
        ("Speech2Text", {"dither": 4.0}, "dither is 4.0, expected 0"),
        ("Speech2Text", {"padding_side": "left"}, "padding_side is 'left'"),
        ("AST", {"sampling_rate": 44100}, "sampling_rate is 44100, expected 16000"),
        ("AST", {"std": 0.0}, "std is 0"),
        ("AST", {"max_length": 0}, "max_length is 0"),
        ("SpeechT5", {"feature_size": 2}, "feature_size is 2"),
        ("Parakeet", {"win_length": 513}, "win_length is 513, it must not be above n_fft, 512"),
        ("Parakeet", {"n_fft": 511}, "n_fft is 511, it must be even"),
        ("Parakeet", {"feature_size": 1, "win_length": 0}, "feature_size is 1.*; win_length is 0"),
        ("Parakeet", {"padding_value": 1.0}, "padding_value is 1.0, expected 0"),
        ("CohereAsr", {"hop_length": 7}, "hop_length is 7, it must be at least 8"),
        ("CohereAsr", {"max_audio_clip_s": 0}, "max_audio_clip_s is 0.0, it must be at least 0.02"),
        ("CohereAsr", {"n_fft": 511}, "n_fft is 511, it must be even"),
        ("Whisper", {"feature_size": 1, "hop_length": 0}, "feature_size is 1.*; hop_length is 0"),
        ("Whisper", {"dither": 1e-4}, "dither is 0.0001, expected 0"),
        ("Whisper", {"chunk_length": 7.5}, "chunk_length is 7.5, expected int"),
        ("Whisper", {"n_fft": 401}, "n_fft is 401, it must be even"),
        ("Whisper", {"sampling_rate": 100, "chunk_length": 2}, "chunk_length is 2: its 200 samples are too few"),
        ("Whisper", {"hop_length": 480_001}, "480,000 samples are too few for n_fft 400 and hop_length 480,001"),
        ("Whisper", {"padding_side": "left"}, "padding_side is 'left'"),
    ],
)
def test_values_that_are_not_followed_are_refused_by_name(kind: str, values: dict[str, Any], problem: str) -> None:
    with pytest.raises(BundleError, match=f"preprocessor_config.json, {kind}FeatureExtractor: .*{problem}"):
        read({"feature_extractor_type": f"{kind}FeatureExtractor", **values})


@pytest.mark.parametrize("kind", ["EncodecFeatureExtractor", None, ["Wav2Vec2FeatureExtractor"]])
def test_another_extractor_is_refused_by_name(kind: Any) -> None:
    with pytest.raises(BundleError) as raised:
        read({"feature_extractor_type": kind} if kind else {})
    assert all(name in str(raised.value) for name in [str(kind), *EXTRACTORS])


@pytest.mark.parametrize("content", ["{", "[]"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(content)
    with pytest.raises(BundleError, match="preprocessor_config.json"):
        read_feature_extractor(path)
