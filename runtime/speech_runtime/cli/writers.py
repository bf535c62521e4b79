"""Destinations of `speech-transcribe`: all results on stdout, or each in its own file."""

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
    """Writes the result of an audio file."""

    def __call__(self, file: str, result: Result) -> None:
        """Write one result."""


@contextmanager
def to_stdout(layout: Format, hypotheses: int) -> Iterator[Writer]:
    """Write results to stdout one after the other; the output is well-formed even after an error.

    Raises:
        click.ClickException: stdout is closed, or its disk is full.
        click.exceptions.Exit: The reader of stdout is gone.
    """
    if sys.stdout is None:
        raise click.ClickException("stdout is closed; leave it open, or write to files with --output-dir")
    written = 0

    def write(file: str, result: Result) -> None:
        nonlocal written
        before = layout.between if written else layout.header + layout.start
        with held():  # an entry is written completely
            _echo(before + layout.entry(file, result, hypotheses))
            written += 1

    try:
        yield write
    finally:
        with held():
            if written:
                _echo(layout.end)


def _echo(text: str) -> None:
    """Write to stdout. Characters that its encoding lacks, or that are not Unicode, are escaped as in JSON."""
    try:
        click.echo(text.encode(sys.stdout.encoding, "backslashreplace"), nl=False)
    except OSError as error:
        abandon_stdout()
        if isinstance(error, BrokenPipeError):
            raise click.exceptions.Exit(1) from error
        raise click.ClickException(f"stdout cannot be written: {error.strerror}; the rest is lost") from error


def is_of_stdout(error: OSError) -> bool:
    """Return true if click raised `error` while it wrote to stdout."""
    return any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def abandon_stdout() -> None:
    """Discard the rest of the buffer of stdout: Python would fail to write it again at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def to_directory(directory: Path, layout: Format, hypotheses: int, files: Collection[str]) -> Iterator[Writer]:
    """Write each result to `directory`, in a file named like the audio; nothing for audio that failed.

    Raises:
        click.UsageError: Two of the `files` would be written to the same file, or one over the audio itself; or the
            directory is a bundle.
        click.FileError: The directory or a file in it cannot be written, or its name is too long. No file is left half
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
        for path in targets.values():  # before the work: a name may be too long only with the suffix of this format
            with suppress(FileNotFoundError):
                path.lstat()
    except OSError as error:
        raise _refused(path, error) from error
    yield write


def _refused(path: Path, error: OSError) -> click.FileError:
    return click.FileError(str(path), f"{error.strerror}; choose another --output-dir, or rename the audio")


def _targets(directory: Path, suffix: str, files: Collection[str]) -> dict[str, Path]:
    # `Path.exists` would raise if the directory may not be read, or a link leads to itself.
    if is_there(directory / MANIFEST):
        raise click.UsageError(f"{directory} is a bundle whose files could be replaced; choose another directory")
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
            raise click.UsageError(f"{target} is an audio file and would be replaced; choose another directory")
        targets[file], sources[target] = target, file
    return targets
