"""Test that a list of any number of clips is transcribed as each clip alone."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import speech_runtime.input_checks
from conftest import Pair
from speech_runtime import AudioError, GenerationError, OnnxSpeechSeq2Seq, Transcription


@pytest.fixture(scope="module")
def clips(references: dict[Path, str]) -> dict[str, Any]:
    """Files and arrays of many lengths, and what they say."""
    return {"files": list(references), "texts": list(references.values())}


@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
def test_order_and_answers_do_not_depend_on_batches(digits: Pair, clips: dict[str, Any], batch_size: int) -> None:
    model: OnnxSpeechSeq2Seq = digits.exported
    order = np.random.default_rng(batch_size).permutation(np.repeat(np.arange(len(clips["files"])), 3))
    audio = [clips["files"][i] if i % 2 else model.load(clips["files"][i]) for i in order]
    texts = model.transcribe(audio, batch_size=batch_size)
    assert texts == [clips["texts"][i] for i in order]


def test_any_sequence_is_a_list_of_clips(digits: Pair, clips: dict[str, Any]) -> None:
    class Files(Sequence[Any]):
        """Such as a column of a data set."""

        def __len__(self) -> int:
            return 2

        def __getitem__(self, position: Any) -> Any:
            return files[position]

    model, files = digits.exported, [str(file) for file in clips["files"][:2]]
    sequences: list[Sequence[Any]] = [files, tuple(files), Files(), [Path(file).read_bytes() for file in files]]
    for sequence in sequences:
        assert model.transcribe(sequence) == clips["texts"][:2]
    samples = model.load(files[0])
    singles: list[Any] = [files[0], Path(files[0]).read_bytes(), samples, (16000, samples)]
    for single in singles:
        assert model.transcribe(single) == clips["texts"][0]
    assert model.transcribe(()) == []
    with pytest.raises(AudioError, match=r"expected mono samples \[samples\], got shape \[2, 800\]"):
        model.transcribe(np.ones((2, 800), dtype=np.float32))


def test_errors_come_in_their_places(digits: Pair, clips: dict[str, Any]) -> None:
    def audio() -> Iterator[Any]:
        yield from (clips["files"][0], "nowhere.wav", np.zeros(16000, dtype=np.float32), clips["files"][1])

    found = list(digits.exported.transcribe_iter(audio(), batch_size=3))
    assert [type(result) for result in found] == [Transcription, AudioError, AudioError, Transcription]
    assert "nowhere.wav" in str(found[1])
    assert "audio[2]: is silent" in str(found[2])
    with pytest.raises(AudioError, match=r"nowhere\.wav"):
        digits.exported.transcribe(list(audio()))


def test_each_clip_may_have_its_own_start(digits: Pair, clips: dict[str, Any]) -> None:
    model, files = digits.exported, clips["files"][:5]
    starts = [0, 5, 6, 7, 8]
    together = list(model.transcribe_iter(files, decoder_start_token_id=starts, batch_size=2))
    alone = [next(model.transcribe_iter([f], decoder_start_token_id=s)) for f, s in zip(files, starts, strict=True)]
    assert [heard.tokens for heard in together] == [heard.tokens for heard in alone]
    prompts = [[0], [0, 5], [0, 6, 7], [0, 5], [0]]
    together = list(model.transcribe_iter(files, decoder_input_ids=prompts, batch_size=3))
    for heard, prompt in zip(together, prompts, strict=True):
        assert heard.tokens[: len(prompt)] == prompt
    with pytest.raises(GenerationError, match="decoder_start_token_id has 2 values for 5 clips; give one for each"):
        model.transcribe(files, decoder_start_token_id=[0, 0])
    with pytest.raises(GenerationError, match="batch_size is 0, it must be an integer, 1 to 65,536"):
        model.transcribe(files, batch_size=0)


def test_what_does_not_fit_is_halved(digits: Pair, clips: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    transcriptions = OnnxSpeechSeq2Seq._transcribe_batch

    def counted(self: OnnxSpeechSeq2Seq, batch: list[Any], *call: Any, **keywords: Any) -> list[Transcription]:
        sizes.append(len(batch))
        return transcriptions(self, batch, *call, **keywords)

    monkeypatch.setattr(OnnxSpeechSeq2Seq, "_transcribe_batch", counted)
    file, facts = clips["files"][0], digits.exported.manifest.encoder
    for_two = speech_runtime.input_checks._least_bytes(2, digits.exported.load(file).size, facts)
    monkeypatch.setattr(speech_runtime.input_checks, "free_memory_bytes", lambda: for_two)
    assert digits.exported.transcribe([file] * 7, batch_size=7) == clips["texts"][:1] * 7
    assert sizes == [1, 2, 2, 2]


def test_after_a_cancel_the_rest_is_empty(digits: Pair, clips: dict[str, Any]) -> None:
    cancel = threading.Event()
    results = digits.exported.transcribe_iter(clips["files"], batch_size=1, cancel=cancel)
    assert next(results).finished == "end"
    cancel.set()
    rest = list(results)
    assert len(rest) == len(clips["files"]) - 1
    assert {(heard.text, heard.finished) for heard in rest} == {("", "stopped")}


def test_a_deadline_is_marked(digits: Pair, clips: dict[str, Any]) -> None:
    (heard,) = digits.exported.transcribe_iter(clips["files"][:1], max_time=0.0)
    assert heard.finished == "time"


def test_an_open_file_is_read(digits: Pair, clips: dict[str, Any]) -> None:
    with Path(clips["files"][0]).open("rb") as file:
        assert digits.exported.transcribe(file) == clips["texts"][0]


def test_settings_are_refused_before_audio_is_read(digits: Pair) -> None:
    with pytest.raises(GenerationError, match="num_beams is 0"):
        digits.exported.transcribe([np.ones(1)], num_beams=0)
