"""Test batches and lists of clips without a model: order, bounded read-ahead, and clips that cannot be read."""

import io
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_runtime import AudioError, AudioLimits, EngineError, GenerationError, OnnxSpeechSeq2Seq
from speech_runtime.errors import EngineMemoryError
from speech_runtime.generation.text import texts_of
from speech_runtime.interrupts import signals_handled
from speech_runtime.transcribe.batching import in_batches, transcribe_clips


@given(lengths=st.lists(st.integers(0, 20), max_size=200), batch_size=st.integers(1, 7))
def test_results_come_in_order(lengths: list[int], batch_size: int) -> None:
    batches: list[Sequence[tuple[int, int]]] = []

    def run(batch: Sequence[tuple[int, int]]) -> Iterator[int]:
        batches.append(batch)
        return (position for position, _ in batch)

    found = list(in_batches(enumerate(lengths), lambda item: item[1], run, batch_size))
    assert found == list(range(len(lengths)))
    assert max(map(len, batches), default=0) <= batch_size
    assert len(batches) <= -(-len(lengths) // batch_size)  # no batch is split but the last


def test_batches_have_similar_lengths() -> None:
    lengths = [1, 9, 1, 9, 1, 9, 1, 9]
    batches: list[Sequence[int]] = []

    def run(batch: Sequence[int]) -> Sequence[int]:
        batches.append(batch)
        return batch

    assert list(in_batches(lengths, float, run, 4)) == lengths
    assert batches == [[1, 1, 1, 1], [9, 9, 9, 9]]


def test_an_endless_list_is_taken_as_it_is_needed() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = in_batches(endless(), lambda item: -item, lambda batch: batch, 4)
    assert [next(results) for _ in range(100)] == list(range(1, 101))
    assert taken <= 100 + 16 * 4


def test_one_at_a_time_is_not_held_back() -> None:
    source = iter(range(3))
    results = in_batches(source, lambda _: 1 / 0, lambda batch: batch, 1)  # no length is asked for
    assert next(results) == 0
    assert next(source) == 1


def echoed(audio: Any, batch_size: Any = 8) -> Iterator[Any]:
    """Transcribe with a model that loads each clip as it is, and returns it as its transcription."""
    return transcribe_clips(
        audio,
        load=lambda clip: np.asarray(clip.audio),
        fits=lambda _: True,
        transcribe=lambda clips: clips,
        keywords={},
        model_rate=16000,
        batch_size=batch_size,
    )


@pytest.mark.parametrize(
    "clip",
    ["x.wav", Path("x.wav"), b"RIFF", io.BytesIO(b"RIFF"), np.ones(8, np.float32), {"array": [0.1]}, (16000, [0.1])],
    ids=["name", "path", "bytes", "open file", "samples", "dict", "tuple"],
)
def test_one_clip_is_no_list(clip: Any) -> None:
    with pytest.raises(AudioError, match=r"takes a list of clips, and got one; give it as \[audio\]"):
        echoed(clip)


@pytest.mark.parametrize(
    ("clips", "count"),
    [(["x.wav", "y.wav"], 2), (("x.wav",), 1), (np.ones((2, 8)), 2), (iter("ab"), 2), ([], 0)],
    ids=["list", "tuple", "rows", "iterator", "empty"],
)
def test_any_list_is_one(clips: Any, count: int) -> None:
    assert len(list(echoed(clips))) == count


@pytest.mark.parametrize("clips", [5, object()])
def test_what_is_no_list_is_refused(clips: Any) -> None:
    with pytest.raises(AudioError, match=r"takes a list of clips, and got .*; give it as \[audio\]"):
        echoed(clips)


@pytest.mark.parametrize(
    "size",
    ["8", 2.5, True, None, float("nan"), float("inf"), 0, -1, 65_537, 2**62, np.float32(1), np.array([1])],
    ids=str,
)
def test_a_batch_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(GenerationError, match=r"batch_size is .*, it must be an integer, 1 to 65,536"):
        echoed(["x.wav"], size)


@pytest.mark.parametrize("size", [1, 65_536, np.int64(8)])
def test_any_batch_size_in_range_will_do(size: Any) -> None:
    assert len(list(echoed(["x.wav", "y.wav"], size))) == 2


class Model:
    """A model that fails on a batch with a clip of 13 samples, and hears in a clip its length."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.batches: list[list[int]] = []

    def batch(self, clips: Sequence[np.ndarray], language: Sequence[str] | None = None) -> list[Any]:
        self.batches.append([clip.size for clip in clips])
        if 13 in self.batches[-1]:
            raise self.error
        return [(clip.size, *own) for clip, own in zip(clips, zip(language or [""] * len(clips)), strict=True)]

    def transcribe(
        self, audio: Any, batch_size: int = 8, limits: AudioLimits | None = None, **keywords: Any
    ) -> Iterator[Any]:
        return transcribe_clips(
            audio,
            load=lambda clip: clip.load(16000, limits),
            fits=lambda _: True,
            transcribe=self.batch,
            keywords=keywords,
            model_rate=16000,
            batch_size=batch_size,
        )


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).standard_normal(samples).astype(np.float32)


@pytest.mark.parametrize("error", [EngineError("graph failed"), MemoryError(), MemoryError("9 TiB")])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_what_fails_on_one_clip_is_its_error(error: Exception, batch_size: int) -> None:
    clips = [noise(size) for size in (10, 11, 13, 12, 14, 13, 15)]
    model, languages = Model(error), list("abcdefg")
    found = list(model.transcribe(clips, batch_size, language=languages))
    expected = zip((10, 11, 13, 12, 14, 13, 15), languages, strict=True)
    assert [result for result in found if isinstance(result, tuple)] == [pair for pair in expected if pair[0] != 13]
    for i in (2, 5):
        assert isinstance(found[i], AudioError)
        assert f"audio[{i}]: the model failed on its 13 samples: {error or 'the memory is exhausted'}" in str(found[i])
        assert found[i].__cause__ is error


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(GenerationError, match="of the call"):
        list(Model(GenerationError("of the call")).transcribe([noise(13)]))


def test_every_odd_clip_is_an_error_in_its_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    odd = [
        None,
        5,
        object(),
        {},
        {"array": noise(10)},
        (float("nan"), noise(10)),
        (16000, "x"),
        "nowhere.wav",
        tmp_path,
        b"",
        tmp_path / "pipe",
        noise(10) * np.float32(3e38),
        np.zeros((2, 9)),
        np.zeros(0),
        "\0",
        "\udcff.wav",
        [[1], [1, 2]],
        {"bytes": b"RIFF"},
        io.StringIO("text"),
        np.array(["a"]),
        np.ones(9, complex),
        {"array": noise(9), "sampling_rate": "x"},
    ]
    clips = [clip for one in odd for clip in (one, noise(20))]
    model = Model(EngineError("never"))
    found: list[Any] = list(model.transcribe(clips, limits=AudioLimits(max_wait=0.1)))
    assert [type(result) for result in found[::2]] == [AudioError] * len(odd)
    assert found[1::2] == [(20, "")] * len(odd)


class Panic(BaseException):
    """As pyo3 has it."""


@pytest.mark.parametrize(
    ("error", "raised"), [(Panic("no thread"), EngineMemoryError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_tokenizer_that_panics_is_an_error_of_memory(error: BaseException, raised: type[BaseException]) -> None:
    class Panicking:
        def decode_batch(self, sequences: object, *, skip_special_tokens: bool) -> None:
            raise error

    with pytest.raises(raised):
        texts_of(Panicking(), [[1]])


def test_the_old_name_of_transcribe_iter_is_deprecated() -> None:
    class Stub:
        def transcribe_iter(self, audio: list[str], **keywords: Any) -> Iterator[Any]:
            yield audio, keywords

    with pytest.warns(DeprecationWarning, match="transcribe_all is now called transcribe_iter"):
        found: Iterator[Any] = OnnxSpeechSeq2Seq.transcribe_all(Stub(), ["a.wav"], batch_size=2)
    assert list(found) == [(["a.wav"], {"batch_size": 2})]


@pytest.mark.parametrize("traced", [True, False], ids=["another error", "dropped by a callback"])
def test_an_interrupt_is_not_the_fault_of_a_clip(traced: bool) -> None:
    """A library raised its own error instead, or its callback dropped the interrupt and read no further."""

    def load(clip: object) -> Any:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            failed = AudioError("a.wav: is truncated")
            failed.__cause__ = error if traced else None
        raise failed

    found: list[object] = []
    keywords: dict[str, Any] = {"load": load, "fits": lambda _: True, "transcribe": lambda *_, **__: [], "keywords": {}}
    with pytest.raises(KeyboardInterrupt), signals_handled():
        found += transcribe_clips([np.zeros(1600, np.float32)], **keywords, model_rate=16_000, batch_size=1)
    assert found == []
