"""Share of tokens that two searches have in common."""

import numpy as np
from numpy.typing import NDArray


def token_agreement(expected: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Return the share of positions with the same token; positions that only one array has count as different."""
    rows, shared = len(expected), min(expected.shape[1], found.shape[1])
    equal = int((expected[:, :shared] == found[:, :shared]).sum())
    return float(equal / (rows * max(expected.shape[1], found.shape[1])))
