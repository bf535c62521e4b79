"""Scores of the next token: their type, the functions that change them, and their probabilities."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
"""Logits or log-probabilities of the next token: [batch, beams, candidates]."""

Sequences = NDArray[np.int64]
"""Tokens so far: [batch, beams, length], the prompt included."""

LogitsProcessor = Callable[[Sequences, Scores], Scores]
"""Changes scores, as a `LogitsProcessor` of transformers does. It leaves its arguments as they are.

Where nothing changes, it returns the array that it was given.
"""


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return log-probabilities of a model's logits over the whole vocabulary, the last axis.

    Sums are float32, as in the exported graph and in torch. On a large vocabulary this takes two thirds of the time of
    `stable_log_softmax`.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logprobs: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logprobs


def log_sum_exp(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the number that `log_softmax` subtracts from each logit of a row, where only a few of many are needed."""
    highest = logits.max(axis=-1)
    total: NDArray[np.float32] = highest + np.log(np.exp(logits - highest[..., None]).sum(axis=-1))
    return total


def stable_log_softmax(scores: Scores) -> Scores:
    """Return log-probabilities float32, of the shape of `scores`; all NaN where no score of a row is finite.

    The settings work on the whole vocabulary or on the best candidates only, and must choose alike: the float64 sum
    hardly depends on the order of the candidates, nor on those at -inf.
    """
    shifted = _below_best(scores)
    total = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)  # 1 where torch's is
    shifted -= np.log(total)  # after the shift: together, large scores would swallow the logarithm
    return shifted


def softmax(scores: Scores) -> Scores:
    """Return probabilities float32, of the shape of `scores`; all NaN where no score of a row is finite.

    The sum is float64, for the reason given in `stable_log_softmax`.
    """
    weights = _below_best(scores)
    np.exp(weights, out=weights)
    with np.errstate(invalid="ignore"):
        weights /= weights.sum(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
    return weights


def entropy(logprobs: Scores, probabilities: Scores) -> Scores:
    """Return the entropy in nats, float32 [..., 1], of [..., candidates]; candidates at -inf add nothing."""
    terms = np.maximum(logprobs, np.finfo(np.float32).min)  # so that 0 · log 0 is 0
    terms *= probabilities
    negative: Scores = terms.sum(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
    return -negative


def _below_best(scores: Scores) -> Scores:
    with np.errstate(invalid="ignore"):  # -inf - -inf
        shifted: Scores = scores - scores.max(axis=-1, keepdims=True)
    return shifted
