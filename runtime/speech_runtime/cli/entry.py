"""Start and end of a command: signals are handled from the first line on and decide the exit code."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import NoReturn

from ..interrupts import Interrupted, heeded


@contextmanager
def exit_when_interrupted() -> Iterator[None]:
    """Exit with code 130 on Ctrl-C and 143 on SIGTERM, with a message. Also a decorator."""
    try:
        with heeded():
            yield
    except KeyboardInterrupt as interrupt:
        from .console import complain  # only now: signals are handled before anything is imported

        complain("\nInterrupted")
        sys.exit(interrupt.exit_code if isinstance(interrupt, Interrupted) else Interrupted(signal.SIGINT).exit_code)


def run(module: str) -> NoReturn:
    """Run the command `main` of a module, which is imported once signals are handled."""
    try:
        with exit_when_interrupted():
            code = _exit_code(module)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # from here on a signal may end the process at once
            if signal.getsignal(number) is signal.default_int_handler:
                signal.signal(number, signal.SIG_DFL)
    sys.exit(code)


def _exit_code(module: str) -> str | int | None:
    try:
        with oserrors_named():
            import_module(module).main()
    except SystemExit as ended:
        return ended.code
    return 0


@contextmanager
def oserrors_named() -> Iterator[None]:
    """Exit with code 1 and a one-line message if the system refuses to write to stdout or to open a path."""
    try:
        yield
    except OSError as error:
        from .writers import abandon_stdout, is_of_stdout  # only now: signals are handled before anything is imported

        if is_of_stdout(error):
            abandon_stdout()
            said = f"stdout cannot be written: {error.strerror}; the rest is lost"
        elif error.filename is not None:
            said = f"{os.fsdecode(error.filename)}: {error.strerror}; check its name and permissions"
        else:
            raise
        from .console import complain

        complain(f"Error: {said}")
        sys.exit(1)
