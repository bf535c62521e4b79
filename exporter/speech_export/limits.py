"""Limits of the verification, and defaults that the command and the Python function share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from speech_runtime.dataclass_json import Rule, at_least, listed, problems

from .errors import ExportError

OnStage = Callable[[str], None]
"""Function that is called with the name of each stage as it begins."""

DEFAULT_TOP_K = 64
"""Number of candidates that a step returns for each beam."""


@dataclass(frozen=True)
class Limits:
    """Largest differences allowed between the exported graphs and the torch model.

    Attributes:
        logprob_difference: Largest difference of a log-probability of 0. One of -10 may differ by twice as much, since
            rounding errors grow with the number.
        agreement: Smallest share of equal tokens. Below 1, searches may choose differently between near ties.
        text_agreement: Smallest share of equal tokens in the texts of greedy search, by edit distance. Below float32 it
            applies to speech only: what a model says to noise and tones hangs on near ties.
        torch_roundings: Allowance for a float32 bundle that exceeds `logprob_difference`: it may differ from torch by
            this many times the difference between torch's float32 and float64 on the same audio; 0 for no allowance.

    Raises:
        ExportError: A limit is out of range or NaN; all of them are listed.
    """

    logprob_difference: Annotated[float, Rule(lambda value: value >= 0, "0 or more (--tolerance)")] = 1e-4
    agreement: Annotated[float, Rule(lambda value: 0 <= value <= 1, "0 to 1 (--min-agreement)")] = 1.0
    text_agreement: Annotated[float, Rule(lambda value: 0 <= value <= 1, "0 to 1 (--min-agreement)")] = 0.0
    torch_roundings: Annotated[float, at_least(0)] = 16.0

    def __post_init__(self) -> None:
        """Check the values."""
        if found := problems(self):
            raise ExportError(f"limits: {listed(found)}")


QUANTIZED_LIMITS = Limits(math.inf, 0.98, text_agreement=0.9)
"""Limits for a bundle below float32: the next token and the whole text count, not differences of log-probabilities."""
