"""Test that captures of CUDA graphs run alone in the process, and that nothing waits for ever."""

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from speech_runtime.backends.cuda import captures
from speech_runtime.backends.cuda.captures import CudaCalls

SOON = 10.0
"""Seconds after which a test that waits fails."""


@pytest.fixture
def calls() -> CudaCalls:
    return CudaCalls()


class Elsewhere:
    """A thread inside a call."""

    def __init__(self, calls: CudaCalls) -> None:
        self._begun, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._call, args=(calls,))
        self._thread.start()
        assert self._begun.wait(SOON)

    def _call(self, calls: CudaCalls) -> None:
        with calls:
            self._begun.set()
            self._end.wait(SOON)

    def end(self) -> None:
        self._end.set()
        self._thread.join(SOON)


@pytest.fixture
def elsewhere(calls: CudaCalls) -> Iterator[Elsewhere]:
    thread = Elsewhere(calls)
    yield thread
    thread.end()


def test_calls_run_at_the_same_time_and_captures_alone(calls: CudaCalls) -> None:
    running, most, alone, lock = 0, 0, [], threading.Lock()

    def note(change: int) -> int:
        nonlocal running, most
        with lock:
            running += change
            most = max(most, running)
            return running

    def call() -> None:
        with calls:
            note(1)
            time.sleep(1e-4)
            note(-1)

    def capture() -> None:
        alone.append(note(100))
        time.sleep(1e-4)
        alone.append(note(-100))

    def work(kind: int) -> None:
        for _ in range(50):
            if kind == 0:
                assert calls.alone(capture)
            else:
                call()

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(work, (0, 0, 1, 1, 1)))
    assert set(alone) == {100, 0}
    assert most % 100 >= 2 or most == 100  # calls overlap, whichever came last


def test_a_capture_gives_up_if_another_thread_does_not_pause(
    calls: CudaCalls, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captures, "_PATIENCE_SECONDS", 0.01)
    captured: list[int] = []
    assert not calls.alone(partial(captured.append, 1))
    assert not captured
    with calls:  # the others go on
        pass
    elsewhere.end()
    assert calls.alone(partial(captured.append, 1))
    assert captured == [1]


def test_a_capture_gives_up_if_another_capture_does_not_end(calls: CudaCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "_PATIENCE_SECONDS", 0.01)

    def capture() -> None:
        with ThreadPoolExecutor(1) as thread:
            assert not thread.submit(calls.alone, pytest.fail).result(SOON)

    assert calls.alone(capture)


def test_a_capture_that_fails_lets_the_others_go_on(calls: CudaCalls) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        calls.alone(partial(raise_, ValueError("on purpose")))
    with calls:
        pass
    assert calls.alone(lambda: None)


def raise_(error: BaseException) -> None:
    raise error


def test_an_interrupt_within_the_entry_is_mended_by_the_next_call(
    calls: CudaCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captures, "_PATIENCE_SECONDS", 0.01)
    calls.__enter__()  # and then an interrupt: the block never begins, so it never ends
    with ThreadPoolExecutor(1) as worker:
        assert not worker.submit(calls.alone, lambda: None).result(SOON)
        with calls:
            pass
        assert worker.submit(calls.alone, lambda: None).result(SOON)


def test_a_call_that_waits_for_a_capture_can_be_interrupted(calls: CudaCalls) -> None:
    capturing, end = threading.Event(), threading.Event()

    def capture() -> None:
        capturing.set()
        end.wait(SOON)

    with ThreadPoolExecutor(1) as worker:
        done = worker.submit(calls.alone, capture)
        assert capturing.wait(SOON)
        threading.Timer(0.05, signal.raise_signal, (signal.SIGINT,)).start()
        with pytest.raises(KeyboardInterrupt), calls:
            pytest.fail("the call began during a capture")
        end.set()
        assert done.result(SOON)
    assert calls.alone(lambda: None)  # nothing is left of the call


class Model:
    """Frees memory of a GPU when it is collected, even within the calls and captures of others."""

    def __init__(self, calls: CudaCalls, free: Callable[[], object]) -> None:
        self.itself = self  # so that only the garbage collector finds it
        weakref.finalize(self, calls.release, free).atexit = False


def test_memory_is_freed_at_once_where_nothing_is_captured(calls: CudaCalls, elsewhere: Elsewhere) -> None:
    freed: list[int] = []
    with calls:  # in the midst of a call of this thread, and of another one
        Model(calls, partial(freed.append, 1))
        gc.collect()
        assert freed == [1]
        assert set(calls._callers) > {threading.get_ident()}  # the call is not over
    elsewhere.end()
    assert calls.alone(lambda: None)


@pytest.mark.parametrize("same_thread", [True, False])
def test_memory_is_freed_after_the_capture_that_runs(calls: CudaCalls, same_thread: bool) -> None:
    freed: list[int] = []

    def collect() -> None:
        Model(calls, partial(freed.append, 1))
        Model(calls, partial(raise_, ValueError("another model's error")))
        Model(calls, partial(freed.append, 2))
        gc.collect()
        assert not freed

    def capture() -> None:
        with ThreadPoolExecutor(1) as thread:
            collect() if same_thread else thread.submit(collect).result(SOON)

    gc.collect()
    assert calls.alone(capture)
    assert sorted(freed) == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_is_forked_during_a_capture_does_not_wait_for_it(calls: CudaCalls) -> None:
    def capture() -> None:
        child = os.fork()
        if not child:
            signal.alarm(round(SOON))  # ends the child if it waits
            with calls:
                os._exit(7 if calls._turn.acquire(timeout=1) else 8)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

    with ThreadPoolExecutor(1) as thread:  # of which the child has nothing
        assert thread.submit(calls.alone, capture).result(2 * SOON)
