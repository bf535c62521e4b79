"""What the packages log, on stderr of a command. As libraries they log, and leave it to others to show it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click


class _StderrHandler(logging.Handler):
    """Writes to whatever stderr is at the moment."""

    def __init__(self, start: str) -> None:
        super().__init__(logging.WARNING)
        self._start = start

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"{self._start}{record.levelname.capitalize()}: {record.getMessage()}", err=True)


@contextmanager
def warnings_on_stderr(*packages: str, start: str = "") -> Iterator[None]:
    """Show what `packages` log at level WARNING and above, as long as the block runs. A decorator, too.

    Args:
        packages: names of loggers.
        start: what comes before each; a line's end, where a line of progress may be open.
    """
    handler = _StderrHandler(start)
    loggers = [logging.getLogger(package) for package in packages]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
