"""Test the audio that a bundle is verified on: directories, reference texts, and errors for faulty ones."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import CLIPS
from native_checkpoints import PROCESSORS
from native_models import native
from speech_export import ExportError, export
from speech_export.verification.evaluation_audio import audio_set, generated_audio
from speech_runtime import AudioError
from speech_runtime.audio.features import (
    CohereAsrExtractor,
    FeatureExtractor,
    SpeechToTextExtractor,
    WaveformExtractor,
    WhisperExtractor,
)
from speech_runtime.bundle.model_facts import EncoderFacts

WAVEFORM = EncoderFacts("input_values", None, heads=4, min_length=400, max_length=None, stride=320)
FRAMES = EncoderFacts("input_features", 80, heads=4, min_length=7, max_length=None, stride=4)
EXTRACTOR = WaveformExtractor(return_attention_mask=True)


def test_clips_come_with_what_they_say_and_others_of_their_length(references: dict[Path, str]) -> None:
    audio = audio_set(WAVEFORM, EXTRACTOR, [], CLIPS)
    assert (audio.clips, audio.speech, audio.description) == (12, True, "12 files")
    assert Counter(text for batch in audio.batches for text in batch.texts) == Counter(references.values())
    lengths = [length for batch in audio.batches for length in batch.attention_mask.sum(axis=1)]
    assert lengths == sorted(lengths)


def test_single_files_are_added(references: dict[Path, str]) -> None:
    audio = audio_set(WAVEFORM, EXTRACTOR, [next(iter(references))])
    assert audio.clips == 1
    assert audio.batches[0].texts == (None,)


def test_without_files_there_is_noise() -> None:
    assert not audio_set(WAVEFORM, EXTRACTOR, []).speech
    assert audio_set(FRAMES, None, []).batches[0].inputs.shape[2] == 80


@pytest.mark.parametrize(
    ("encoder", "extractor"),
    [
        (replace(WAVEFORM, max_length=6_400), EXTRACTOR),
        (replace(WAVEFORM, max_length=500), EXTRACTOR),
        (replace(WAVEFORM, min_length=60_000), EXTRACTOR),
        (replace(FRAMES, max_length=40, min_length=1), SpeechToTextExtractor(num_mel_bins=80)),
        (replace(FRAMES, max_length=3, min_length=1), SpeechToTextExtractor(num_mel_bins=80)),
        (replace(FRAMES, max_length=100, min_length=100), WhisperExtractor(chunk_length=1)),
        (FRAMES, CohereAsrExtractor(max_audio_clip_s=1.0)),
    ],
)
def test_noise_is_no_longer_than_the_model_takes(encoder: EncoderFacts, extractor: FeatureExtractor) -> None:
    (batch,) = audio_set(encoder, extractor, []).batches
    assert len(batch.inputs) == 4
    assert encoder.min_length <= batch.inputs.shape[1] <= (encoder.max_length or batch.inputs.shape[1])
    for clip in generated_audio(encoder, extractor):
        extractor.input_length(clip.size)


def test_noise_has_clips_of_several_lengths_where_a_model_takes_little() -> None:
    (batch,) = audio_set(replace(WAVEFORM, max_length=6_400), EXTRACTOR, []).batches
    assert len({*batch.attention_mask.sum(axis=1).tolist()}) == 4


@pytest.mark.parametrize(
    ("family", "positions", "longest"),
    [
        pytest.param("speech_to_text", {"max_source_positions": 10}, 40, marks=pytest.mark.full),
        ("moonshine_streaming", {"max_position_embeddings": 20}, 6_400),
    ],
)
def test_a_model_of_few_positions_is_verified(
    family: str, positions: dict[str, int], longest: int, tmp_path: Path
) -> None:
    config = native(family).config
    vars(config).update(positions)
    model = type(native(family))(config).eval()
    extractor = PROCESSORS[family](tmp_path).feature_extractor
    manifest = export(model, tmp_path / "bundle", feature_extractor=extractor).manifest
    assert manifest.encoder.max_length == longest
    assert manifest.verification is not None
    assert manifest.verification.audio == "generated noise and tones"


def test_a_directory_without_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("one")
    with pytest.raises(ExportError, match=r"has no audio \(\.wav, .*\); put some speech"):
        audio_set(WAVEFORM, EXTRACTOR, [], tmp_path)
    with pytest.raises(ExportError, match="is not a directory"):
        audio_set(WAVEFORM, EXTRACTOR, [], tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("clip.wav\tone\n", "needs the columns file and text"),
        ("file\ttext\nother.wav\tone\n", "names files that do not exist: other.wav"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table: str, message: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.wav", np.full(1600, 0.1, dtype=np.float32), 16000)
    (tmp_path / "reference.tsv").write_text(table)
    with pytest.raises(ExportError, match=message):
        audio_set(WAVEFORM, EXTRACTOR, [], tmp_path)


def test_a_clip_beyond_the_window_is_named(tmp_path: Path) -> None:
    for name, seconds in (("a", 1), ("b", 31), ("c", 2)):
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(0).uniform(-0.5, 0.5, seconds * 16000), 16000)
    with pytest.raises(AudioError, match=r"b\.wav: lasts 31\.00 s .* the model takes at most 30\.00 s"):
        audio_set(FRAMES, WhisperExtractor(), [], tmp_path)


def test_audio_needs_a_feature_extractor() -> None:
    with pytest.raises(ExportError, match="has no feature extractor that the runtime knows"):
        audio_set(FRAMES, None, [], CLIPS)
