"""Calls into native code; the interpreter waits for them when it exits."""

import atexit
import os
import threading
import time

_POLL_SECONDS = 1e-3


class NativeCalls:
    """A context for native code that releases the GIL.

    While the interpreter exits, Python up to 3.13 kills a daemon thread that reacquires the GIL; inside C++ this aborts
    the process. So the exit waits for calls that are running, and daemon threads cannot begin new ones.

    A list is appended to and popped from without a lock: a lock would take about as long as a step of a small decoder.
    """

    def __init__(self) -> None:
        self._start()
        atexit.register(self.close)
        # A forked child has none of the parent's threads, and would wait for them forever.
        os.register_at_fork(after_in_child=self._start)

    def __enter__(self) -> None:
        """Begin a call; once the interpreter exits, a daemon thread blocks here forever."""
        self._running.append(None)  # before reading `_closed`: either `close` sees this call, or this call sees `close`
        if self._closed and threading.current_thread().daemon:
            self._running.pop()
            threading.Event().wait()

    def __exit__(self, *_: object) -> None:
        """End a call."""
        self._running.pop()

    def close(self) -> None:
        """Block new calls of daemon threads, and wait until no call is running."""
        self._closed = True
        while self._running:
            time.sleep(_POLL_SECONDS)

    def _start(self) -> None:
        self._running: list[None] = []
        self._closed = False


NATIVE_CALLS = NativeCalls()
"""The calls of all backends."""
