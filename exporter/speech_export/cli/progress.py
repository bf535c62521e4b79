"""Progress of a command on stderr."""

import sys
import time

from speech_runtime.cli.console import complain


class Progress:
    """One line for each stage: its number and name, and how many seconds it took."""

    def __init__(self, stages: int) -> None:
        """Take the expected number of stages; more may come."""
        self._stages = stages
        self._stage = 0
        self._line = ""
        self._begin = 0.0
        self._rewritten = False

    def __call__(self, stage: str) -> None:
        """Begin a stage; the one before has ended."""
        self.end()
        self._stage += 1
        self._begin = time.perf_counter()
        self._line = f"[{self._stage}/{max(self._stage, self._stages)}] {stage} … "
        complain(self._line, end="")

    def detail(self, text: str) -> None:
        """Show `text` behind the present stage, in place of the last detail; on a terminal only."""
        if sys.stderr is not None and sys.stderr.isatty():
            self._rewritten = True
            complain(f"\r\x1b[K{self._line}{text}", end="")

    def end(self) -> None:
        """Close the line of the present stage."""
        if self._line:
            again = f"\r\x1b[K{self._line}" if self._rewritten else ""
            complain(f"{again}{time.perf_counter() - self._begin:.1f} s")
        self._line, self._rewritten = "", False
