"""A thread that runs one job after another, for state that ONNX Runtime keeps for each thread: its recordings."""

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from ...errors import EngineError

Result = TypeVar("Result")

_CHECK_SECONDS = 5.0
"""Seconds after which a caller that waits makes sure that the thread still runs."""


class Worker:
    """Runs the jobs of all threads on one thread of its own, which ends when this object is collected.

    The thread is a daemon, since it would keep the interpreter from exiting otherwise. It never begins a job by itself,
    so the interpreter waits for it where it waits for the caller; see `NATIVE_CALLS`.
    """

    def __init__(self, name: str) -> None:
        """Start the thread; `name` is for debuggers."""
        self._process = os.getpid()
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        weakref.finalize(self, self._jobs.put, None).atexit = False  # takes no lock: a finalizer may run anywhere
        self._thread = threading.Thread(target=_serve, args=(self._jobs,), name=name, daemon=True)
        self._thread.start()

    def __call__(self, work: Callable[[], Result]) -> Result:
        """Call `work` on the thread, and return its result or raise its error.

        An interrupt is raised when `work` is done, because `work` uses tensors of the caller.

        Raises:
            EngineError: The thread has ended, or belongs to the parent of this forked process.
        """
        if os.getpid() != self._process:
            raise EngineError(
                "this model was loaded before the process was forked, and a GPU cannot be used after that; load the "
                "model in the child, or start it with multiprocessing.get_context('spawn')"
            )
        job = _Job(work)
        self._jobs.put(job)
        job.wait(self._thread)
        return job.result()


class _Job(Generic[Result]):
    """A call that one thread waits for and another one makes."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._done = False
        self._error: BaseException | None = None
        self._wake = threading.Lock()
        self._wake.acquire()

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # the caller raises it
            self._error = error
        self._done = True
        self._wake.release()

    def wait(self, thread: threading.Thread) -> None:
        interrupt: BaseException | None = None
        while not self._done:  # an interrupt may come when the lock is just acquired, so the lock alone says nothing
            try:
                if not self._wake.acquire(timeout=_CHECK_SECONDS) and not thread.is_alive():
                    break
            except BaseException as error:  # Ctrl-C, or what a signal handler raises
                interrupt = error
        if interrupt is not None:
            raise interrupt
        if not self._done:
            raise EngineError("the thread that runs the recorded steps has ended; load the model again")

    def result(self) -> Result:
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            del self._error  # its traceback refers to this job


def _serve(jobs: "SimpleQueue[_Job[Any] | None]") -> None:
    while (job := jobs.get()) is not None:
        job.run()
        del job  # and with it the tensors, which may be the last ones that refer to a model
