"""What an export can be asked for, apart from the model: shared by the command and the Python function."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from .errors import ExportError

OnStage = Callable[[str], None]
"""Told what is being done."""

DEFAULT_TOP_K = 64
"""Candidates a step returns for each beam."""


@dataclass(frozen=True)
class Limits:
    """How far the exported graphs may be from the torch model.

    Attributes:
        logprob_difference: of a log-probability of 0; one of -10 may differ by twice as much, as rounding does.
        agreement: the share of equal tokens; below 1 it lets through searches that had to choose between equals.
        torch_roundings: of a float32 bundle. Where it is beyond `logprob_difference`, it may still be so many times as
            far from torch as torch's own float32 is from float64 on the same audio; 0 for no such allowance.
    """

    logprob_difference: float = 1e-4
    agreement: float = 1.0
    torch_roundings: float = 16.0

    def __post_init__(self) -> None:
        """Refuse what no difference could be beyond, or within; NaN above all.

        Raises:
            ExportError: a limit is out of range.
        """
        if not self.logprob_difference >= 0:
            raise ExportError(f"the tolerance is {self.logprob_difference:g}; give 0 or more (--tolerance)")
        if not 0 <= self.agreement <= 1:
            raise ExportError(f"the least agreement is {self.agreement:g}; give 0 … 1 (--min-agreement)")
        if not self.torch_roundings >= 0:
            raise ExportError(f"torch_roundings is {self.torch_roundings:g}; give 0 or more")


QUANTIZED_LIMITS = Limits(math.inf, 0.98)
"""Of a quantised bundle: what counts is which token comes next, not by how much."""
