"""Ctrl-C and SIGTERM: each ends what runs, and none is lost in a callback or taken for another error.

Python raises `KeyboardInterrupt` wherever the main thread is. In a callback of a weak reference or of a library it is
printed and forgotten; a library may also raise an error of its own in its place. So it is written down as well.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_AFTER = 0.02
"""Seconds until an interrupt that a callback swallowed is raised again: the callback has returned by then."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end; `signum` says which one."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """What a shell expects: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signum


class Interrupts:
    """The signal that arrived while signals were heeded, if one did."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def check(self) -> None:
        """Raise `Interrupted` where a signal arrived, whatever became of the exception that it raised."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    def _arrived(self, signum: int, _: FrameType | None) -> None:
        self.signum = signum
        raise Interrupted(signum)

    def _unraisable(self, unraisable: Any, shown: Callable[[Any], object]) -> None:
        """Raise an interrupt again that a callback swallowed; a thread does it, since this is within the callback."""
        if self.signum is None or not issubclass(unraisable.exc_type, KeyboardInterrupt):
            shown(unraisable)
            return
        # A real signal, which wakes the main thread where it waits for the system.
        main_thread = threading.main_thread().ident
        timer = threading.Timer(_AGAIN_AFTER, signal.pthread_kill, (main_thread, self.signum))
        timer.daemon = True
        timer.start()


_heeded: Interrupts | None = None


@contextmanager
def heeded() -> Iterator[Interrupts]:
    """Heed SIGINT and SIGTERM while the block runs; at its end no signal is lost.

    A handler that somebody else installed is left alone, and in another thread than the main one nothing is done. A
    block within a block heeds the same signals.

    Raises:
        Interrupted: a signal arrived, even where its exception was swallowed or became another error.
    """
    if _heeded is None and threading.current_thread() is threading.main_thread():
        with _handlers() as interrupts, _not_lost(interrupts):
            yield interrupts
    else:
        interrupts = _heeded or Interrupts()
        with _not_lost(interrupts):
            yield interrupts


@contextmanager
def _not_lost(interrupts: Interrupts) -> Iterator[None]:
    """Raise `Interrupted` at the end of the block where a signal arrived, and in place of what became of it."""
    try:
        yield
    except BaseException as error:
        said = isinstance(error, SystemExit) and error.code == 128 + (interrupts.signum or 0)
        if interrupts.signum is None or isinstance(error, Interrupted) or said:
            raise
        raise Interrupted(interrupts.signum) from error
    interrupts.check()


@contextmanager
def _handlers() -> Iterator[Interrupts]:
    global _heeded
    interrupts, unraisable = Interrupts(), sys.unraisablehook
    standard = (signal.default_int_handler, signal.SIG_DFL)
    before = {number: handler for number in _SIGNALS if (handler := signal.getsignal(number)) in standard}
    try:
        sys.unraisablehook = lambda swallowed: interrupts._unraisable(swallowed, unraisable)
        _heeded = interrupts
        for number in before:
            signal.signal(number, interrupts._arrived)
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = unraisable
        _heeded = None


@contextmanager
def held() -> Iterator[None]:
    """Finish the block before a signal is heeded; it is raised at the end. The second signal does not wait."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(signum: int, frame: FrameType | None) -> None:
        handler = before[signum]
        if arrived and callable(handler):
            handler(signum, frame)
        arrived.append(signum)

    try:
        for number, handler in before.items():
            if callable(handler):  # one that is ignored stays so; without a handler the process ends at once
                signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


def interruption(error: BaseException) -> KeyboardInterrupt | None:
    """The interrupt that `error` came of, where a library raised its own error in place of it."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        if isinstance(following, KeyboardInterrupt):
            return following
        seen.add(id(following))
        following = following.__cause__ or following.__context__
    return None
