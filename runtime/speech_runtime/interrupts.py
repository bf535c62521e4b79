"""Handling of Ctrl-C and SIGTERM: each ends the program, and none is lost in a callback or hidden by another error.

Python raises `KeyboardInterrupt` wherever the main thread is. In a callback of a weak reference or of a library it is
printed and dropped, and a library may raise its own error instead. So the signal is recorded, too.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_AFTER = 0.02
"""Seconds until an interrupt that a callback dropped is raised again: the callback has returned by then."""


class Interrupted(KeyboardInterrupt):
    """The signal `signum` ends the process."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """Exit code that shells expect: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signum


class Interrupts:
    """What arrived while signals were handled.

    Attributes:
        signum: Signal, or None.
        is_told: Whether the user has been told. `timeout`, for example, sends its signal twice.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.is_told = False

    def check(self) -> None:
        """Raise `Interrupted` if a signal arrived, even if its exception was lost."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    def _arrived(self, signum: int, _: FrameType | None) -> None:
        self.signum = signum
        raise Interrupted(signum)

    def _unraisable(self, unraisable: Any, shown: Callable[[Any], object]) -> None:
        """Raise an interrupt again that a callback dropped; from a thread, since this runs inside the callback.

        Other errors are not shown after a signal: an object whose making it cut off may complain when it is deleted.
        """
        if self.signum is None:
            shown(unraisable)
            return
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            return
        # A real signal wakes the main thread if it waits in a system call.
        main_thread = threading.main_thread().ident
        scheduled = False
        while not scheduled:
            timer = threading.Timer(_AGAIN_AFTER, signal.pthread_kill, (main_thread, self.signum))
            timer.daemon = True
            with suppress(Interrupted):  # on a busy machine the signal comes before `start` returns: it needs another
                timer.start()
                scheduled = True


_active: Interrupts | None = None


@contextmanager
def signals_handled() -> Iterator[Interrupts]:
    """Handle SIGINT and SIGTERM while the block runs; no signal is lost at its end.

    Handlers that others installed stay. Outside the main thread nothing is done. Nested blocks share their signals.

    Raises:
        Interrupted: A signal arrived, even if its exception was dropped or became another error.
    """
    if _active is None and threading.current_thread() is threading.main_thread():
        with _handlers() as interrupts, _not_lost(interrupts):
            yield interrupts
    else:
        interrupts = _active or Interrupts()
        with _not_lost(interrupts):
            yield interrupts


@contextmanager
def _not_lost(interrupts: Interrupts) -> Iterator[None]:
    """Raise `Interrupted` at the end of the block if a signal arrived, in place of any error that it caused."""
    try:
        yield
    except BaseException as error:
        exits_for_it = isinstance(error, SystemExit) and error.code == 128 + (interrupts.signum or 0)
        if interrupts.signum is None or isinstance(error, Interrupted) or exits_for_it:
            raise
        raise Interrupted(interrupts.signum) from error
    interrupts.check()


@contextmanager
def _handlers() -> Iterator[Interrupts]:
    global _active
    interrupts, unraisable = Interrupts(), sys.unraisablehook
    standard = (signal.default_int_handler, signal.SIG_DFL)
    before = {number: handler for number in _SIGNALS if (handler := signal.getsignal(number)) in standard}
    try:
        sys.unraisablehook = lambda swallowed: interrupts._unraisable(swallowed, unraisable)
        _active = interrupts
        for number in before:
            signal.signal(number, interrupts._arrived)
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = unraisable
        _active = None


@contextmanager
def held() -> Iterator[None]:
    """Delay a signal until the end of the block. A second signal is raised at once."""
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
            if callable(handler):  # ignored signals stay ignored; without a handler the process ends at once
                signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


def raise_if_interrupted(error: BaseException) -> None:
    """Raise the interrupt that caused `error`, so that it is not taken for a fault of a file or an engine.

    An interrupt that a library's callback dropped leaves no trace in `error`; it counts if `signals_handled` noted it.
    """
    if _active is not None:
        _active.check()
    if (interrupt := interruption(error)) is not None:
        raise interrupt


def interruption(error: BaseException) -> KeyboardInterrupt | None:
    """Return the interrupt that caused `error`, where a library raised its own error instead."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        if isinstance(following, KeyboardInterrupt):
            return following
        seen.add(id(following))
        following = following.__cause__ or following.__context__
    return None
