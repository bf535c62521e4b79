"""Test that a pipeline of transformers has the same results with an exported model as with the checkpoint's own."""

import copy
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from transformers import (
    AutoFeatureExtractor,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    GenerationConfig,
    MaxLengthCriteria,
    Pipeline,
    PreTrainedModel,
    SuppressTokensLogitsProcessor,
    WhisperForConditionalGeneration,
    pipeline,
)
from transformers.pipelines import automatic_speech_recognition

from conftest import CHECKPOINT, CLIPS, Pair, Saved
from native_models import save_whisper
from speech_export.optimum import OnnxModelForSpeechSeq2Seq
from speech_runtime import AudioError, GenerationError

TASK = "automatic-speech-recognition"
CLIP = CLIPS / "02-espeak-us.wav"


@dataclass(frozen=True)
class Both:
    """A pipeline with transformers' own model, and one with its export, with the files that the bundle has."""

    theirs: Pipeline
    ours: Pipeline

    def compare(self, audio: Any, **call: Any) -> Any:
        """Call both with a copy each, since pipelines change dictionaries; return what both say."""
        wanted = self.theirs(copy.deepcopy(audio), **copy.deepcopy(call))
        assert self.ours(audio, **call) == wanted
        return wanted


def both(model: PreTrainedModel, checkpoint: Path, exported: OnnxModelForSpeechSeq2Seq, bundle: Path) -> Both:
    def parts(directory: Path) -> dict[str, Any]:
        return {
            "tokenizer": AutoTokenizer.from_pretrained(directory),
            "feature_extractor": AutoFeatureExtractor.from_pretrained(directory),
        }

    return Both(pipeline(TASK, model=model, **parts(checkpoint)), pipeline(TASK, model=exported, **parts(bundle)))


@pytest.fixture(scope="module", autouse=True)
def files_are_read_without_ffmpeg() -> Iterator[None]:
    def read(content: bytes, sampling_rate: int) -> NDArray[np.float32]:
        samples: NDArray[np.float32]
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
        assert rate == sampling_rate
        return samples

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(automatic_speech_recognition, "ffmpeg_read", read)
        yield


@pytest.fixture(scope="module")
def exported(digits: Pair) -> OnnxModelForSpeechSeq2Seq:
    return OnnxModelForSpeechSeq2Seq.from_pretrained(digits.directory)


@pytest.fixture(scope="module")
def composite(digits: Pair, exported: OnnxModelForSpeechSeq2Seq) -> Both:
    return both(digits.reference, CHECKPOINT, exported, digits.directory)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory, short_verification: None, traced_once: None) -> Both:
    checkpoint = tmp_path_factory.mktemp("whisper")
    model: WhisperForConditionalGeneration = save_whisper(checkpoint)
    bundle = tmp_path_factory.mktemp("bundle")
    exported = OnnxModelForSpeechSeq2Seq.from_pretrained(checkpoint, export=True)
    exported.save_pretrained(bundle)
    return both(model, checkpoint, exported, bundle)


@pytest.fixture(scope="module", params=["moonshine", "speech_to_text"])
def native(request: pytest.FixtureRequest, native_checkpoint: Callable[..., Saved]) -> Both:
    saved = native_checkpoint(request.param)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(saved.checkpoint)
    exported = OnnxModelForSpeechSeq2Seq.from_pretrained(saved.bundle)
    return both(model, saved.checkpoint, exported, saved.bundle)


@pytest.fixture(scope="module")
def clips(references: dict[Path, str]) -> list[NDArray[np.float32]]:
    return [soundfile.read(file, dtype="float32")[0] for file in list(references)[:5]]


@pytest.fixture(scope="module")
def noise() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(44000).astype(np.float32) * 0.1


@pytest.mark.parametrize(
    "given",
    [
        str,
        Path.read_bytes,
        lambda path: soundfile.read(path, dtype="float32")[0],
        lambda path: torch.from_numpy(soundfile.read(path)[0]),
        lambda path: {"raw": soundfile.read(path)[0], "sampling_rate": 16000},
        lambda path: {"array": soundfile.read(path)[0], "sampling_rate": 16000, "path": str(path), "id": 7},
    ],
    ids=["file", "bytes", "array", "tensor", "raw", "row"],
)
def test_audio_in_every_form(composite: Both, references: dict[Path, str], given: Callable[[Path], object]) -> None:
    assert composite.compare(given(CLIP))["text"] == references[CLIP]


@pytest.mark.parametrize(
    "call",
    [
        {"batch_size": 3},
        {"generate_kwargs": {"num_beams": 5}},
        {"generate_kwargs": {"num_beams": 1, "max_new_tokens": 4}, "batch_size": 2},
        {"generation_config": GenerationConfig(num_beams=2, max_new_tokens=5)},
        {"chunk_length_s": 1.2},
        {"chunk_length_s": 1.0, "stride_length_s": (0.3, 0.1), "batch_size": 4},
        {"generate_kwargs": {"return_dict_in_generate": True, "output_scores": True}},
        {"return_timestamps": False},
    ],
    ids=str,
)
def test_lists_of_clips(composite: Both, clips: list[NDArray[np.float32]], call: dict[str, Any]) -> None:
    assert len({said["text"] for said in composite.compare(clips, **call)}) > 1


def test_clips_of_a_generator(composite: Both, clips: list[NDArray[np.float32]]) -> None:
    wanted = list(composite.theirs((clip for clip in clips), batch_size=2))
    assert list(composite.ours((clip for clip in clips), batch_size=2)) == wanted


def test_settings_of_the_model_are_followed(composite: Both, clips: list[NDArray[np.float32]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for each in (composite.theirs, composite.ours):
            patch.setattr(each.model.generation_config, "max_new_tokens", 3)
        shortest = composite.compare(clips)
    assert shortest != composite.compare(clips)


def test_a_pipeline_shows_what_it_has(composite: Both) -> None:
    assert "OnnxModelForSpeechSeq2Seq" in repr(composite.ours)
    assert repr(composite.ours) == repr(composite.theirs).replace(
        "SpeechEncoderDecoderModel", "OnnxModelForSpeechSeq2Seq"
    )


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"batch_size": 3},
        {"generate_kwargs": {"num_beams": 1, "language": "german", "task": "translate"}},
        {"generate_kwargs": {"num_beams": 3, "max_new_tokens": 12}},
    ],
    ids=str,
)
def test_whisper(whisper: Both, noise: NDArray[np.float32], call: dict[str, Any]) -> None:
    assert len({said["text"] for said in whisper.compare([noise[:16000], noise[:9001], noise[9001:13001]], **call)}) > 1


@pytest.mark.parametrize(
    ("call", "settings"), [({}, {}), ({"batch_size": 3}, {"num_beams": 5}), ({"chunk_length_s": 0.8}, {})], ids=str
)
def test_other_models_with_a_decoder_of_their_own(
    native: Both, clips: list[NDArray[np.float32]], call: dict[str, Any], settings: dict[str, Any]
) -> None:
    search = {"min_new_tokens": 8, "max_new_tokens": 20, "no_repeat_ngram_size": 1, **settings}
    assert len({said["text"] for said in native.compare(clips, generate_kwargs=search, **call)}) > 1


@pytest.mark.parametrize("call", [{"chunk_length_s": 1}, {"chunk_length_s": 0.8, "stride_length_s": 0.1}], ids=str)
def test_whisper_on_long_audio(whisper: Both, noise: NDArray[np.float32], call: dict[str, Any]) -> None:
    whisper.compare(noise, batch_size=2, **call)


def test_what_whisper_does_not_do_here(whisper: Both, noise: NDArray[np.float32]) -> None:
    for call, name in (
        ({"return_timestamps": True}, "return_timestamps is not possible: a text has no times"),
        ({"return_timestamps": "word"}, "return_timestamps is not possible"),
        ({"return_language": True}, "return_segments is not possible"),
    ):
        with pytest.raises(GenerationError, match=name):
            whisper.ours(noise[:16000], **call)
    with pytest.raises(
        AudioError, match=r"input_features has 275 frames, and Whisper's window has 100; .*chunk_length_s"
    ):
        whisper.ours(noise)


def test_outputs_of_generate_are_those_of_transformers(
    composite: Both, exported: OnnxModelForSpeechSeq2Seq, clips: list[NDArray[np.float32]]
) -> None:
    inputs = composite.theirs.feature_extractor(clips, sampling_rate=16000, padding=True, return_tensors="pt")
    call = {
        "num_beams": 3,
        "logits_processor": [SuppressTokensLogitsProcessor([9, 13], "cpu")],
        "stopping_criteria": [MaxLengthCriteria(7)],
        "output_scores": True,
        "return_dict_in_generate": True,
    }
    wanted = composite.theirs.model.generate(**inputs, **call)
    found = exported.generate(**inputs, **call)
    assert type(found) is type(wanted)
    assert torch.equal(found.sequences, wanted.sequences)
    torch.testing.assert_close(found.sequences_scores, wanted.sequences_scores, atol=1e-4, rtol=0)
    assert torch.equal(found.beam_indices, wanted.beam_indices)
    for ours, theirs in zip(found.scores, wanted.scores, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


def test_logits_and_losses_are_those_of_transformers(
    composite: Both, exported: OnnxModelForSpeechSeq2Seq, clips: list[NDArray[np.float32]]
) -> None:
    inputs = composite.theirs.feature_extractor(clips, sampling_rate=16000, padding=True, return_tensors="pt")
    tokens = exported.generate(**inputs)
    with torch.no_grad():
        wanted = composite.theirs.model(**inputs, labels=tokens[:, 1:])
    found = exported(**inputs, labels=tokens[:, 1:])
    torch.testing.assert_close(found.logits, wanted.logits, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.loss, wanted.loss, atol=1e-4, rtol=0)
    assert exported(**inputs, decoder_input_ids=tokens).loss is None
