"""Calls into native code, which the end of the interpreter waits for."""

import atexit
import os
import threading
import time

_POLL_SECONDS = 1e-3


class NativeCalls:
    """A context in which a thread is in native code that lets other threads of Python run.

    While Python ends, up to 3.13, a daemon thread that comes back to it is ended where it stands. Within C++ that
    aborts the process. So the end waits for the calls that are running, and daemon threads begin no other ones.

    A step of a small decoder takes little longer than a lock: a list is added to and taken from without one.
    """

    def __init__(self) -> None:
        self._start()
        atexit.register(self.close)
        # The threads of the parent are not there in a child, and would be waited for.
        os.register_at_fork(after_in_child=self._start)

    def __enter__(self) -> None:
        """Begin a call; a daemon thread stands still here once Python ends."""
        self._running.append(None)  # before the question: `close` sees this, or this sees `close`
        if self._closed and threading.current_thread().daemon:
            self._running.pop()
            threading.Event().wait()

    def __exit__(self, *_: object) -> None:
        """End a call."""
        self._running.pop()

    def close(self) -> None:
        """Wait until no call is running, and let daemon threads begin no other one."""
        self._closed = True
        while self._running:
            time.sleep(_POLL_SECONDS)

    def _start(self) -> None:
        self._running: list[None] = []
        self._closed = False


NATIVE_CALLS = NativeCalls()
"""The calls of all engines."""
