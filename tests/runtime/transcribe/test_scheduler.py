"""Test the running batch: a clip's transcription is that of the clip alone, whoever joins and leaves beside it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import CLIPS, Pair
from speech_runtime import (
    AudioError,
    GenerationError,
    OnnxSpeechSeq2Seq,
    QueueFull,
    Scheduler,
    SchedulerClosed,
    SchedulerStats,
    Transcription,
)

FILES = sorted(CLIPS.glob("*.flac"))
LONG = {"num_beams": 4, "max_new_tokens": 40, "min_new_tokens": 40}
"""Settings of a clip that stays for 40 steps."""


@pytest.fixture
def model(digits: Pair) -> OnnxSpeechSeq2Seq:
    return digits.exported


@pytest.fixture
def scheduler(model: OnnxSpeechSeq2Seq) -> Iterator[Scheduler]:
    with model.scheduler(max_utterances=4, max_waiting=64) as scheduler:
        yield scheduler


def alone(model: OnnxSpeechSeq2Seq, clip: Any, **keywords: Any) -> Transcription:
    (found,) = model.transcribe_iter([clip], **with_generator(keywords))
    assert isinstance(found, Transcription)
    return found


def with_generator(keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords with a generator of their own in place of `seed`."""
    given = dict(keywords)
    if (seed := given.pop("seed", None)) is not None:
        given |= {"generator": np.random.default_rng(seed), "do_sample": True}
    return given


def content(found: Transcription) -> Any:
    """All but the times."""
    others = [(other.text, other.tokens, other.score, other.finished) for other in found.alternatives]
    return found.text, found.tokens, found.score, found.finished, found.audio_seconds, others


def settings_of_a_clip() -> st.SearchStrategy[dict[str, Any]]:
    optional = {
        "length_penalty": st.sampled_from([-1.0, 0.0, 2.0]),
        "early_stopping": st.sampled_from([True, False, "never"]),
        "repetition_penalty": st.sampled_from([0.8, 1.3]),
        "no_repeat_ngram_size": st.sampled_from([1, 2]),
        "max_new_tokens": st.integers(1, 12),
        "min_new_tokens": st.integers(1, 5),
        "suppress_tokens": st.lists(st.integers(4, 20), min_size=1, max_size=3),
        "decoder_input_ids": st.sampled_from([[[0, 4, 5]], [[0, 9]]]),
        "seed": st.integers(0, 9),
    }
    return st.fixed_dictionaries({"num_beams": st.sampled_from([1, 4, 5])}, optional=optional)


@settings(deadline=None, max_examples=12)
@given(st.lists(st.tuples(st.sampled_from(FILES), settings_of_a_clip(), st.integers(0, 2)), min_size=6, max_size=12))
def test_a_clip_is_transcribed_as_alone(digits: Pair, clips: list[tuple[Any, dict[str, Any], int]]) -> None:
    model = digits.exported
    expected = [content(alone(model, file, **keywords)) for file, keywords, _ in clips]
    with model.scheduler(max_utterances=4) as scheduler:
        futures = []
        for file, keywords, pause in clips:
            futures.append(scheduler.submit(file, **with_generator(keywords)))
            time.sleep(pause * 0.004)
        assert [content(future.result()) for future in futures] == expected


def test_sixteen_threads(model: OnnxSpeechSeq2Seq, scheduler: Scheduler) -> None:
    expected = {file: content(alone(model, file)) for file in FILES}
    found: list[tuple[Any, Any]] = []

    def caller(number: int) -> None:
        own = FILES[number % 3 :: 3]
        found.extend((file, content(scheduler.submit(file).result())) for file in own)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == expected[file] for file, result in found)
    stats = scheduler.stats()
    assert stats.finished == stats.submitted == len(found) > 16
    assert (stats.running, stats.waiting, stats.rows, stats.failed, stats.cancelled) == (0, 0, 0, 0, 0)
    assert stats.tokens > 0
    assert stats.audio_seconds > 0


def fails(_: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    raise ZeroDivisionError


def is_not_a_number(_: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.full_like(scores, np.nan)


def bans_all(_: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.full_like(scores, -np.inf)


def has_another_shape(_: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return scores[:, :, 1:]


def writes_into_its_arguments(sequences: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    sequences[:] = 7
    scores[:] = np.nan
    return scores


def takes_long(_: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    time.sleep(0.03)
    return scores


def gives_up(_: str) -> None:
    raise SystemExit


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize(
    "failing",
    [
        *({"logits_processor": [each]} for each in (fails, bans_all, has_another_shape)),
        *({"logits_processor": [each]} for each in (is_not_a_number, writes_into_its_arguments)),
        {"stopping_criteria": [lambda _: "nothing"]},
        {"stream": gives_up},
    ],
)
def test_a_failure_is_that_of_one_clip(
    failing: dict[str, Any], beams: int, model: OnnxSpeechSeq2Seq, scheduler: Scheduler
) -> None:
    expected = content(alone(model, FILES[1], num_beams=beams))
    before = [scheduler.submit(FILES[1], num_beams=beams) for _ in range(2)]
    broken = scheduler.submit(FILES[0], num_beams=beams, **failing)
    after = [scheduler.submit(FILES[1], num_beams=beams) for _ in range(2)]
    assert [content(future.result()) for future in (*before, *after)] == [expected] * 4
    error = broken.exception()
    assert isinstance(error, GenerationError | ZeroDivisionError | SystemExit)
    assert content(scheduler.submit(FILES[1], num_beams=beams).result()) == expected
    assert scheduler.stats().failed == 1


def held(scheduler: Scheduler) -> tuple[threading.Event, "Future[Transcription]"]:
    """Hold the scheduler's thread in a step of a clip, until the event is set."""
    reached, go_on = threading.Event(), threading.Event()

    def hold(_: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float32]:
        reached.set()
        go_on.wait(10)
        return scores

    future = scheduler.submit(FILES[0], logits_processor=[hold], max_new_tokens=2)
    assert reached.wait(10)
    return go_on, future


def test_a_full_queue_is_told_at_once(model: OnnxSpeechSeq2Seq) -> None:
    with model.scheduler(max_utterances=1, max_waiting=2) as scheduler:
        go_on, first = held(scheduler)
        waiting = [scheduler.submit(FILES[1]) for _ in range(2)]
        with pytest.raises(QueueFull, match="2 clips are waiting already"):
            scheduler.submit(FILES[2])
        assert (scheduler.stats().running, scheduler.stats().waiting) == (1, 2)
        assert waiting[0].cancel()
        third = scheduler.submit(FILES[2])  # takes the place of the one that was cancelled
        go_on.set()
        assert first.result().finished == "length"
        assert content(third.result()) == content(alone(model, FILES[2]))
        assert content(waiting[1].result()) == content(alone(model, FILES[1]))
        stats = scheduler.stats()
    assert (stats.submitted, stats.finished, stats.cancelled) == (4, 3, 1)


def test_a_clip_can_be_cancelled_while_it_waits_and_while_it_is_decoded(scheduler: Scheduler) -> None:
    started = threading.Event()

    def notes(_: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float32]:
        started.set()
        return scores

    running = scheduler.submit(FILES[0], **LONG, logits_processor=[notes])
    assert started.wait(10)
    go_on, _ = held(scheduler)
    waiting = scheduler.submit(FILES[1])
    assert running.cancel()
    assert waiting.cancel()
    assert waiting.cancel()  # once more does no harm
    go_on.set()
    for future in (running, waiting):
        with pytest.raises(CancelledError):
            future.result()
    other = scheduler.submit(FILES[2])
    other.result()
    assert not other.cancel()  # too late
    scheduler.close()
    stats = scheduler.stats()
    assert (stats.submitted, stats.finished, stats.cancelled, stats.running) == (4, 2, 2, 0)


def test_times_count_from_the_submission(model: OnnxSpeechSeq2Seq) -> None:
    with model.scheduler(max_utterances=1) as scheduler:
        go_on, _ = held(scheduler)
        late = scheduler.submit(FILES[1], max_time=0.01)
        time.sleep(0.02)
        go_on.set()
        with pytest.raises(GenerationError, match="no time left when its turn came; allow more with max_time"):
            late.result()
        slow = scheduler.submit(FILES[1], max_time=0.05, logits_processor=[takes_long])
        assert slow.result().finished == "time"


def test_priority_is_a_head_start(model: OnnxSpeechSeq2Seq) -> None:
    order: list[str] = []

    def submit(name: str, priority: float) -> "Future[Transcription]":
        future = scheduler.submit(FILES[0], priority=priority, max_new_tokens=1)
        future.add_done_callback(lambda _: order.append(name))
        return future

    with model.scheduler(max_utterances=1) as scheduler:
        go_on, _ = held(scheduler)
        futures = [submit("first", 0), submit("second", 0), submit("urgent", 1), submit("whenever", -1)]
        go_on.set()
        wait(futures)
    assert order == ["urgent", "first", "second", "whenever"]


def test_a_long_clip_does_not_keep_others_from_their_turn(model: OnnxSpeechSeq2Seq) -> None:
    """Under constant load: whoever came first is served first, and a late clip never waits for all before it to end."""
    with model.scheduler(max_utterances=2, max_waiting=40) as scheduler:
        long = scheduler.submit(FILES[0], **LONG)
        short = [scheduler.submit(FILES[1], max_new_tokens=2) for _ in range(8)]
        wait(short[:4])
        assert not long.done()
        assert long.result().finished == "length"


def test_text_comes_as_it_is_decided(model: OnnxSpeechSeq2Seq, scheduler: Scheduler) -> None:
    neighbours = [scheduler.submit(file, **LONG) for file in FILES[:2]]
    pieces = list(scheduler.stream(FILES[4], num_beams=4))
    assert len(pieces) > 1
    assert "".join(pieces) == alone(model, FILES[4], num_beams=4).text
    assert all(neighbour.result().finished == "length" for neighbour in neighbours)


@pytest.mark.parametrize("leave", ["close", "drop", "never started"])
def test_a_reader_that_leaves_frees_its_place(leave: str, scheduler: Scheduler) -> None:
    text = scheduler.stream(FILES[4], num_beams=4, max_new_tokens=60, min_new_tokens=60)
    if leave != "never started":
        next(text)
    if leave == "close":
        text.close()
        assert list(text) is not None
    del text
    scheduler.close()
    stats = scheduler.stats()
    assert (stats.cancelled, stats.finished) == (1, 0)


def test_an_error_of_a_stream_is_raised_where_it_is_read(scheduler: Scheduler) -> None:
    with pytest.raises(ZeroDivisionError):
        list(scheduler.stream(FILES[0], logits_processor=[fails]))


def test_what_is_wrong_with_a_clip_is_told_at_once(scheduler: Scheduler) -> None:
    with pytest.raises(AudioError, match="nothing-here"):
        scheduler.submit("nothing-here.wav")
    with pytest.raises(GenerationError, match="num_beans"):
        scheduler.submit(FILES[0], num_beans=4)  # type: ignore[call-arg]
    with pytest.raises(GenerationError, match="priority is '1', it must be a number"):
        scheduler.submit(FILES[0], priority="1")
    assert scheduler.stats() == SchedulerStats()


@pytest.mark.parametrize("name", ["max_utterances", "max_waiting"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "8"])
def test_numbers_of_clips_are_checked(name: str, value: Any, model: OnnxSpeechSeq2Seq) -> None:
    with pytest.raises(GenerationError, match=f"{name} is .*, it must be an integer, 1 or more"):
        model.scheduler(**{name: value})


@pytest.mark.parametrize("cancel", [False, True])
def test_closing_leaves_nobody_waiting(cancel: bool, model: OnnxSpeechSeq2Seq) -> None:
    scheduler = model.scheduler(max_utterances=2)
    futures = [scheduler.submit(file, **LONG) for file in FILES]
    scheduler.close(cancel=cancel)
    scheduler.close()
    assert all(future.done() for future in futures)
    assert cancel or [future.result().finished for future in futures] == ["length"] * len(FILES)
    with pytest.raises(SchedulerClosed):
        scheduler.submit(FILES[0])
    stats = scheduler.stats()
    assert stats.submitted == len(FILES) == stats.finished + stats.failed + stats.cancelled


def test_a_step_that_fails_is_told_to_all_of_its_clips(
    model: OnnxSpeechSeq2Seq, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = model._backend
    prepare: Callable[..., Any] = type(backend).prepare

    def broken(self: Any, *given: Any) -> Any:
        raise MemoryError("none is left")

    go_on, first = held(scheduler)
    second = scheduler.submit(FILES[1])
    monkeypatch.setattr(type(backend), "prepare", broken)
    go_on.set()
    assert isinstance(first.exception(), MemoryError) or first.result()
    assert isinstance(second.exception(), MemoryError)
    monkeypatch.setattr(type(backend), "prepare", prepare)
    assert content(scheduler.submit(FILES[1]).result()) == content(alone(model, FILES[1]))
