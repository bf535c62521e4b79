"""Arguments of an export apart from the model, shared by the command and the Python function."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from speech_runtime.dataclass_json import Rule, problems

from .errors import ExportError

OnStage = Callable[[str], None]
"""Callback that receives a description of each stage."""

DEFAULT_TOP_K = 64
"""Number of candidates that a step returns for each beam."""


@dataclass(frozen=True)
class Limits:
    """Largest differences allowed between the exported graphs and the torch model.

    Attributes:
        logprob_difference: Largest difference of a log-probability of 0. One of -10 may differ by twice as much, since
            rounding errors grow with the number.
        agreement: Smallest share of equal tokens; below 1, searches may choose differently between near ties.
        torch_roundings: Allowance for a float32 bundle that exceeds `logprob_difference`: it may differ from torch by
            this many times the difference between torch's float32 and float64 on the same audio; 0 for no allowance.

    Raises:
        ExportError: Limits are out of range or NaN; all of them are listed.
    """

    logprob_difference: Annotated[float, Rule(lambda limit: limit >= 0, "0 or more (--tolerance)")] = 1e-4
    agreement: Annotated[float, Rule(lambda share: 0 <= share <= 1, "0 to 1 (--min-agreement)")] = 1.0
    torch_roundings: Annotated[float, Rule(lambda factor: factor >= 0, "0 or more")] = 16.0

    def __post_init__(self) -> None:
        """Check all limits."""
        if found := problems(self):
            raise ExportError(f"limits: {'; '.join(found)}")


QUANTIZED_LIMITS = Limits(math.inf, 0.98)
"""Limits of a quantised bundle: the next token counts, not its exact log-probability."""
