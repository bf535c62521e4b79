"""What the packages log, on stderr of a command. As libraries they log, and leave it to others to show it."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click


def complain(text: str = "", *, end: str = "\n") -> None:
    """Write a line to stderr, or a part of one. Where nobody can read it, the work goes on."""
    with suppress(OSError):
        click.echo((text + end).encode("utf-8", "backslashreplace"), nl=False, err=True)


class _StderrHandler(logging.Handler):
    """Writes to whatever stderr is at the moment: warnings by their name, all else with the seconds since the start."""

    def __init__(self, level: int, start: str) -> None:
        super().__init__(level)
        self._start = start
        self._begin = time.time()

    def emit(self, record: logging.LogRecord) -> None:
        seconds = f"[{record.created - self._begin:.3f} s]"
        what = f"{record.levelname.capitalize()}:" if record.levelno >= logging.WARNING else seconds
        complain(f"{self._start}{what} {record.getMessage()}")


@contextmanager
def log_on_stderr(*packages: str, start: str = "", verbose: bool = False) -> Iterator[None]:
    """Show what `packages` log at level WARNING and above, as long as the block runs. A decorator, too.

    Args:
        packages: names of loggers.
        start: what comes before each; a line's end, where a line of progress may be open.
        verbose: show everything.
    """
    handler = _StderrHandler(logging.DEBUG if verbose else logging.WARNING, start)
    loggers = [logging.getLogger(package) for package in packages]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        if verbose:
            logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
