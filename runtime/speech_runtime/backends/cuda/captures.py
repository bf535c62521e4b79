"""Keep all other CUDA calls of the process out while ONNX Runtime captures a step as a CUDA graph.

It captures in CUDA's global mode: meanwhile a call such as cudaMalloc, by any thread of the process, fails and spoils
the capture. So every CUDA call of every model is announced here, and a capture waits until there is none.

Nothing here waits for ever: a capture gives up if the others do not pause, since a step can run without one, and calls
wait for captures only. Finalizers, which Python may run at any time in any thread, do not wait at all.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)

_POLL_SECONDS = 2e-4
_PATIENCE_SECONDS = 1.0
"""Seconds that a capture waits for the calls of other threads. An encoder takes less, loading a model takes more."""


class CudaCalls:
    """A context for CUDA calls, which may run at the same time; captures run alone.

    Each thread is entered by its number instead of being counted: an interrupt between the entry and the call would
    leave a count that is wrong for ever, while the next call of the same thread mends its entry.
    """

    def __init__(self) -> None:
        self._start()
        # A forked child has none of the parent's threads, and would wait for them.
        os.register_at_fork(after_in_child=self._start)

    def __enter__(self) -> None:
        """Begin a call once no capture runs. Calls must not be nested."""
        thread = threading.get_ident()
        self._callers[thread] = None  # before reading `_capturing`: either the capture sees this call, or vice versa
        while self._capturing:
            del self._callers[thread]
            time.sleep(_POLL_SECONDS)
            self._callers[thread] = None

    def __exit__(self, *_: object) -> None:
        """End a call."""
        self._callers.pop(threading.get_ident(), None)

    def alone(self, capture: Callable[[], None]) -> bool:
        """Call `capture` while no other thread calls CUDA, outside of a call.

        Returns:
            False if `capture` was not called, because the calls of other threads did not end in time.
        """
        if not self._turn.acquire(timeout=_PATIENCE_SECONDS):
            return False
        try:
            self._capturing = True
            if not self._others_left():
                return False
            capture()
            return True
        finally:
            self._capturing = False
            self._turn.release()
            self._release()

    def release(self, free: Callable[[], object]) -> None:
        """Call `free`, which frees memory of the GPU, now or after the capture that runs. For finalizers."""
        self._unreleased.append(free)
        self._release()

    def _others_left(self) -> bool:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while set(self._callers):
            if time.monotonic() > give_up:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _release(self) -> None:
        thread = threading.get_ident()
        is_inside = thread in self._callers  # of a call that the finalizer has interrupted
        self._callers[thread] = None
        try:
            while self._unreleased and not self._capturing:  # the thread that captures does it afterwards
                try:
                    self._unreleased.popleft()()
                except IndexError:  # another thread was faster
                    return
                except Exception:  # of another model, which this thread may know nothing of
                    logger.exception("memory of the GPU was not freed")
        finally:
            if not is_inside:
                self._callers.pop(thread, None)

    def _start(self) -> None:
        self._callers: dict[int, None] = {}
        self._turn = threading.Lock()
        self._capturing = False
        self._unreleased: deque[Callable[[], object]] = deque()


CUDA_CALLS = CudaCalls()
"""The CUDA calls of all models."""
