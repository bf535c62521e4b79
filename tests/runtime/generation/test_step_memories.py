"""Test that the memory of recorded steps serves one search at a time, whenever Python collects the previous one."""

import gc
import sys
import threading
from collections.abc import Callable
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np

from speech_runtime.bundle.model_facts import DecoderFacts
from speech_runtime.generation.decoding.caches import buffer_pool
from speech_runtime.generation.decoding.caches.buffer_pool import Lent, StepBufferPool

FACTS = DecoderFacts(
    *(1, 1, 1),
    vocab_size=5,
    max_positions=None,
    max_tokens=1,
    top_k=5,
    cache="static",
    cache_length=8,
)
MASK = np.ones((1, 16), dtype=np.int64)
STATES = np.zeros((1, 16, 4), dtype=np.float32)


class Search:
    """Something that memory is lent to; it refers to itself, so that only the collector finds out that it is gone."""

    def __init__(self) -> None:
        self.itself = self


def memories(recordings: int) -> StepBufferPool:
    backend = SimpleNamespace(
        recordings=recordings,
        recording_memory=None,
        allocate=lambda shape, dtype: np.zeros(shape, dtype),
        upload=np.array,
        download=np.asarray,
        write=np.copyto,
        dtype=lambda graph, name: np.dtype(np.float32),
        prepare=lambda *_: dict,
    )
    return StepBufferPool(backend, FACTS)


def lend(lender: StepBufferPool, search: Search, batch: int = 1) -> Lent | None:
    return lender.lend(search, np.repeat(STATES, batch, axis=0), np.repeat(MASK, batch, axis=0), beams=1)


def in_time(work: Callable[[], None]) -> None:
    """Run it in a thread of its own, and fail where that stands still."""
    done = threading.Event()

    def run() -> None:
        work()
        done.set()

    threading.Thread(target=run, daemon=True).start()
    assert done.wait(20), "the search waits for a lock that its own thread holds"


def test_a_search_may_be_collected_at_any_line_of_another_ones_start() -> None:
    """Python collects whenever it likes, and in whichever thread: here at each line of the module in turn."""
    lender, lines = memories(2), 0
    traced: list[str] = []

    def collect_at(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != buffer_pool.__file__:
            return None
        if event == "line":
            traced.append(frame.f_code.co_name)
            if len(traced) == lines:
                gc.collect()
        return collect_at

    def work() -> None:
        nonlocal lines
        while lines <= len(traced):
            lines, present = lines + 1, Search()
            traced.clear()
            gc.collect()
            assert lend(lender, Search()) is not None  # nothing refers to it any more, and it is not collected yet
            sys.settrace(collect_at)
            try:
                lend(lender, present)
            finally:
                sys.settrace(None)

    gc.disable()
    gc.freeze()  # what is there already: to look through it takes long
    try:
        in_time(work)
    finally:
        gc.unfreeze()
        gc.enable()
    assert "_take" in traced


def test_memory_comes_back_for_the_next_search_of_its_size() -> None:
    lender = memories(2)
    one, two, other = Search(), Search(), Search()
    first, second = lend(lender, one), lend(lender, two, batch=2)
    assert first is not None
    assert second is not None
    assert lend(lender, other) is None
    del one
    gc.collect()
    assert lend(lender, other, batch=2) is None  # what came back is of another size
    assert lend(lender, other) is first


def test_many_threads_share_memory_and_never_the_same() -> None:
    lender, lock = memories(3), threading.Lock()
    held: set[int] = set()
    shared = []

    def work() -> None:
        for _ in range(200):
            search = Search()
            lent = lend(lender, search)
            if lent is None:
                continue
            with lock:
                shared.append(id(lent) in held)
                held.add(id(lent))
            with lock:
                held.remove(id(lent))
            del search
            gc.collect(0)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert shared
    assert not any(shared)
