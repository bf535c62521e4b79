"""Progress of the `speech-export` command on stderr."""

import sys
import time

from speech_runtime.cli.console import complain


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
