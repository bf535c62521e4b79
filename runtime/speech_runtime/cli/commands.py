"""Entry points of the installed commands."""

from typing import NoReturn

from .entry import run


def transcribe() -> NoReturn:
    """Run `speech-transcribe`."""
    run("speech_runtime.cli.transcribe")


def bench() -> NoReturn:
    """Run `speech-bench`."""
    run("speech_runtime.cli.bench")


def export() -> NoReturn:
    """Run `speech-export`."""
    run("speech_export.cli.export")
