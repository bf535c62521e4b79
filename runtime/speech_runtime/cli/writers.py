"""Where `speech-transcribe` writes: all results to stdout, or each to a file of its own."""

import os
import sys
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import click

from ..atomic.writing import write_text
from ..bundle.manifest import MANIFEST
from ..bundle.safe_files import is_there
from ..interrupts import held
from .formats import Format, Result


class Writer(Protocol):
    """Takes what was heard in a file."""

    def __call__(self, file: str, result: Result) -> None:
        """Write one result."""


@contextmanager
def to_stdout(layout: Format, hypotheses: int) -> Iterator[Writer]:
    """Write results one after the other; what was begun is ended, whatever happens.

    Raises:
        click.ClickException: stdout is closed, or its disk is full.
        click.exceptions.Exit: who read stdout has gone.
    """
    if sys.stdout is None:
        raise click.ClickException("stdout is closed; leave it open, or write to files with --output-dir")
    written = 0

    def write(file: str, result: Result) -> None:
        nonlocal written
        before = layout.between if written else layout.header + layout.start
        with held():  # what is written stays whole
            _echo(before + layout.entry(file, result, hypotheses))
            written += 1

    try:
        yield write
    finally:
        with held():
            if written:
                _echo(layout.end)


def _echo(text: str) -> None:
    """Write to stdout. What its encoding does not have, as a name that is no Unicode, is escaped as JSON does it."""
    try:
        click.echo(text.encode(sys.stdout.encoding, "backslashreplace"), nl=False)
    except OSError as error:
        abandon_stdout()
        if isinstance(error, BrokenPipeError):
            raise click.exceptions.Exit(1) from error
        raise click.ClickException(f"stdout cannot be written: {error.strerror}; the rest is lost") from error


def is_of_stdout(error: OSError) -> bool:
    """Whether click raised it while it wrote: help, the version, or the end of a command."""
    return any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def abandon_stdout() -> None:
    """Let what is left in the buffer go nowhere: Python would fail again when it ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def to_directory(directory: Path, layout: Format, hypotheses: int, files: Collection[str]) -> Iterator[Writer]:
    """Write each result to `directory` under the name of its audio file; nothing for audio that was not heard.

    Raises:
        click.UsageError: two of the `files` would be written to the same one, or one over the audio itself; the
            directory is a bundle.
        click.FileError: the directory or a file in it cannot be written, or has too long a name; no file is left half
            written.
    """
    targets = _targets(directory, layout.suffix, files)

    def write(file: str, result: Result) -> None:
        if isinstance(result, Exception):
            return
        target = targets[file]
        try:
            write_text(target, layout.header + layout.entry(file, result, hypotheses), errors="backslashreplace")
        except OSError as error:
            raise _refused(target, error) from error

    path = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in targets.values():  # before the work: a name may be too long for one suffix, and not for another
            with suppress(FileNotFoundError):
                path.lstat()
    except OSError as error:
        raise _refused(path, error) from error
    yield write


def _refused(path: Path, error: OSError) -> click.FileError:
    return click.FileError(str(path), f"{error.strerror}; choose another --output-dir, or rename the audio")


def _targets(directory: Path, suffix: str, files: Collection[str]) -> dict[str, Path]:
    # Where a directory may not be looked into, or a link leads to itself, `Path` would raise.
    if is_there(directory / MANIFEST):
        raise click.UsageError(f"{directory} is a bundle, and what was heard could replace files of it; choose another")
    audio = {os.path.realpath(file) for file in files if file != "-"}
    targets: dict[str, Path] = {}
    sources: dict[Path, str] = {}
    for file in files:
        target = directory / ("stdin" if file == "-" else Path(file).stem)
        target = target.with_name(target.name + suffix)
        if target in sources:
            raise click.UsageError(
                f"{sources[target]} and {file} would both be written to {target}; transcribe them to two directories"
            )
        if os.path.realpath(target) in audio:
            raise click.UsageError(f"{target} is audio itself, and would be replaced; choose another directory")
        targets[file], sources[target] = target, file
    return targets
