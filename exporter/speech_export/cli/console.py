"""Messages of the `speech-export` command: its progress on stderr, and the libraries that it imports for an export."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click

from speech_runtime.cli.console import complain
from speech_runtime.install_hints import how_to_install


class Progress:
    """Writes one line for each stage to stderr, and appends its seconds when it ends."""

    def __init__(self, stages: int) -> None:
        """Begin without a stage.

        Args:
            stages: Expected number of stages.
        """
        self._stages = stages
        self._number = 0
        self._line = ""
        self._begin = 0.0
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._shows_step = False

    def __call__(self, stage: str) -> None:
        """End the current stage and begin the next."""
        self.end()
        self._number += 1
        self._line = f"[{self._number}/{max(self._number, self._stages)}] {stage} … "
        self._begin = time.perf_counter()
        complain(self._line, end="")

    def step(self, phase: str, done: int, steps: int) -> None:
        """Show the step of the current stage, on a terminal only."""
        if self._is_terminal:
            self._shows_step = True
            complain(f"\r\x1b[K{self._line}{phase}, {done} of {steps}", end="")

    def end(self) -> None:
        """Complete the line of the current stage."""
        if self._line:
            complain(f"\r\x1b[K{self._line}" if self._shows_step else "", end="")
            complain(f"{time.perf_counter() - self._begin:.1f} s")
        self._line, self._shows_step = "", False


@contextmanager
def export_libraries() -> Iterator[None]:
    """Within this context, import what an export needs; a failure becomes one line, and the libraries are silenced."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is needed to export: {how_to_install('export', 'cpu')}") from error
    except ImportError as error:  # a part of a library is missing, or the memory for it
        raise click.ClickException(f"a library that exports need is installed, but fails to load: {error}") from error
    _silence_libraries()


def _silence_libraries() -> None:
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    # Deprecations of transformers concern this package, not its users.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|speech_export")
    hub_logging.set_verbosity(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
