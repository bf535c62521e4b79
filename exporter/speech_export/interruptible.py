"""Ctrl-C while a library works that calls Python back: an exception in a callback is what the library makes of it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def interruptible(work: Callable[[], Result], interrupt: Callable[[], None]) -> Result:
    """What `work` returns, run in a thread of its own.

    Python handles signals in the main thread, in the first line of Python that runs there: that of a callback, if a
    library works there, and TensorRT swallows what is raised in its log.

    Args:
        work: what is to be done.
        interrupt: asks it to end, at Ctrl-C; its end is waited for.

    Raises:
        KeyboardInterrupt: Ctrl-C, once the work has ended.
    """
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            interrupt()
            raise
