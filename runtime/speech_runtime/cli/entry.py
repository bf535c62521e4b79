"""Start and end of a command: handlers for Ctrl-C and SIGTERM, one-line errors, and the exit code."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import NoReturn

from ..interrupts import Interrupted, Interrupts, signals_handled

_INTERRUPTED = tuple(Interrupted(number).exit_code for number in (signal.SIGINT, signal.SIGTERM))


@contextmanager
def exit_when_interrupted() -> Iterator[None]:
    """Exit with a message and code 130 on Ctrl-C, 143 on SIGTERM. This is a decorator, too."""
    interrupts = Interrupts()
    try:
        with signals_handled() as interrupts:
            yield
    except KeyboardInterrupt as interrupt:
        from .console import complain  # imported here, since signals must be handled before slow imports

        if not interrupts.is_told:
            interrupts.is_told = True
            complain("\nInterrupted")
        sys.exit(interrupt.exit_code if isinstance(interrupt, Interrupted) else Interrupted(signal.SIGINT).exit_code)


def run(module: str, arguments: Sequence[str] | None = None, program: str | None = None) -> NoReturn:
    """Handle signals, import `module`, run its command `main`, and exit.

    Args:
        module: Module of the command.
        arguments: Arguments of the command; None for those of the process.
        program: Name of the command in its help; None for that of the process.
    """
    try:
        with exit_when_interrupted():
            code = _exit_code(module, arguments, program)
    except SystemExit as ended:
        code = ended.code
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # during exit, a signal may end the process at once
            if signal.getsignal(number) is signal.default_int_handler:
                signal.signal(number, signal.SIG_DFL)
    if code in _INTERRUPTED:
        sys.unraisablehook = _not_shown
    sys.exit(code)


def _not_shown(_: object) -> None:
    """Ignore an error of a callback: an object whose making was cut off may complain when it is deleted at exit."""


def _exit_code(module: str, arguments: Sequence[str] | None, program: str | None) -> str | int | None:
    try:
        with oserrors_named():
            import_module(module).main(arguments, program)
    except SystemExit as ended:
        return ended.code
    return 0


@contextmanager
def oserrors_named() -> Iterator[None]:
    """Exit with code 1 and a one-line message if stdout cannot be written or a path cannot be opened."""
    try:
        yield
    except OSError as error:
        from .writers import abandon_stdout, is_of_stdout  # imported here, as in `exit_when_interrupted`

        if is_of_stdout(error):
            abandon_stdout()
            message = f"stdout cannot be written: {error.strerror}; the rest is lost"
        elif error.filename is not None:
            message = f"{os.fsdecode(error.filename)}: {error.strerror}; check its name and permissions"
        else:
            raise
        from .console import complain

        complain(f"Error: {message}")
        sys.exit(1)
