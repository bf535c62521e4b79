"""Scores of the next token of every beam: their type, what changes them, and the probabilities they stand for."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
"""Logits or log-probabilities of the next token: [batch, beams, candidates]."""

Sequences = NDArray[np.int64]
"""The tokens so far: [batch, beams, length], the prompt included."""

Processor = Callable[[Sequences, Scores], Scores]
"""Changes scores, as a `LogitsProcessor` of transformers does. Leaves its arguments as they are.

Returns the very array it was given where nothing changes.
"""


def softmax(scores: Scores) -> Scores:
    """Probabilities float32, of the shape of `scores`; all NaN where no score of a row is finite.

    The sum is taken in float64, so that it hardly depends on the order of the candidates, nor on those at -inf.
    """
    weights = _below_best(scores)
    np.exp(weights, out=weights)
    with np.errstate(invalid="ignore"):
        weights /= weights.sum(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
    return weights


def log_softmax(scores: Scores) -> Scores:
    """Log-probabilities float32, of the shape of `scores`; all NaN where no score of a row is finite."""
    shifted = _below_best(scores)
    total = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)  # 1 where torch's is
    shifted -= np.log(total)  # after the shift: together, large scores would swallow the logarithm
    return shifted


def entropy(logprobs: Scores, probabilities: Scores) -> Scores:
    """Entropy in nats, float32 [..., 1], of both float32 [..., candidates]; candidates at -inf add nothing."""
    terms = np.maximum(logprobs, np.finfo(np.float32).min)  # so that 0 · log 0 is 0
    terms *= probabilities
    negative: Scores = terms.sum(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
    return -negative


def _below_best(scores: Scores) -> Scores:
    with np.errstate(invalid="ignore"):  # -inf - -inf
        shifted: Scores = scores - scores.max(axis=-1, keepdims=True)
    return shifted
