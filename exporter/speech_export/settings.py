"""What an export can be asked for, apart from the model: shared by the command and the Python function."""

import math
from dataclasses import dataclass

DEFAULT_TOP_K = 64
"""Candidates a step returns for each beam."""


@dataclass(frozen=True)
class Limits:
    """How far the exported graphs may be from the torch model.

    `agreement` is the share of equal tokens; below 1 it lets through searches that had to choose between equals.
    `logprob_difference` is that of a log-probability of 0; one of -10 may differ by twice as much, as rounding does.
    """

    logprob_difference: float = 1e-4
    agreement: float = 1.0


QUANTIZED_LIMITS = Limits(math.inf, 0.98)
"""Of a quantised bundle: what counts is which token comes next, not by how much."""
