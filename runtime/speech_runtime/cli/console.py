"""Log messages of the packages on a command's stderr. As libraries the packages only log."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click


def complain(text: str = "", *, end: str = "\n") -> None:
    """Write a line, or part of one, to stderr. If stderr is closed, the work goes on."""
    with suppress(OSError):
        click.echo((text + end).encode("utf-8", "backslashreplace"), nl=False, err=True)


class _StderrHandler(logging.Handler):
    """Writes to the current stderr: warnings with their level, other messages with the seconds since the start."""

    def __init__(self, level: int, start: str) -> None:
        super().__init__(level)
        self._start = start
        self._begin = time.time()

    def emit(self, record: logging.LogRecord) -> None:
        seconds = f"[{record.created - self._begin:.3f} s]"
        prefix = f"{record.levelname.capitalize()}:" if record.levelno >= logging.WARNING else seconds
        complain(f"{self._start}{prefix} {record.getMessage()}")


@contextmanager
def log_on_stderr(*packages: str, start: str = "", verbose: bool = False) -> Iterator[None]:
    """Show messages of `packages` at level WARNING and above while the block runs. Also a decorator.

    Args:
        packages: Names of loggers.
        start: Text before each message, such as a newline if a progress line may be open.
        verbose: If true, show messages of all levels.
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
