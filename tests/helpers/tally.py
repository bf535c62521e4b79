"""Counts of the cases that tests compared with transformers, printed at the end of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["same", "near tie"]


@dataclass
class Tally:
    """Cases, and those of them in which rounding decided a near tie otherwise."""

    cases: int = 0
    near_ties: int = 0

    def add(self, *verdicts: Verdict) -> None:
        """Count cases by what was found in each."""
        self.cases += len(verdicts)
        self.near_ties += verdicts.count("near tie")

    @property
    def few_ties(self) -> bool:
        """True if at most one case in a hundred is a near tie."""
        return self.near_ties <= max(1, self.cases // 100)

    def __str__(self) -> str:
        return f"{self.cases} cases, {self.near_ties} near ties"


TallyUp = Callable[[Tally], None]
"""Has a tally shown at the end of the run; fails where near ties are many."""
