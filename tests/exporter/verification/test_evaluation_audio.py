"""Test the audio that a bundle is verified on: directories, reference texts, and errors for faulty ones."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import CLIPS
from speech_export import ExportError
from speech_export.verification.evaluation_audio import audio_set
from speech_runtime.audio.features import WaveformExtractor
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


def test_audio_needs_a_feature_extractor() -> None:
    with pytest.raises(ExportError, match="has no feature extractor that the runtime knows"):
        audio_set(FRAMES, None, [], CLIPS)
