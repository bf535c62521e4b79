"""How a command starts and ends: signals are heeded from its first line on, and decide its exit code."""

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
        sys.stderr.write("\nInterrupted\n")
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
        import_module(module).main()
    except SystemExit as ended:
        return ended.code
    return 0
