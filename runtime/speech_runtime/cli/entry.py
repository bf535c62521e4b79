"""How a command starts and ends: signals are heeded from its first line on, and decide its exit code."""

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
    """Exit with 130 at Ctrl-C, with 143 at SIGTERM, and say so, whatever the block made of it. A decorator, too."""
    try:
        with heeded():
            yield
    except KeyboardInterrupt as interrupt:
        from .console import complain  # only now: signals are heeded before anything is imported

        complain("\nInterrupted")
        sys.exit(interrupt.exit_code if isinstance(interrupt, Interrupted) else Interrupted(signal.SIGINT).exit_code)


def run(module: str) -> NoReturn:
    """Run the command `main` of a module, which is imported only once signals are heeded."""
    try:
        with exit_when_interrupted():
            code = _exit_code(module)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # nothing is left to do but to end
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
    """Exit with 1, and say on one line what the system refused: to write to stdout, or a path that was given."""
    try:
        yield
    except OSError as error:
        from .writers import abandon_stdout, is_of_stdout  # only now: signals are heeded before anything is imported

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
