"""The candidates for the next token of every beam."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Candidates:
    """Next tokens of every beam, or of one beam where all are still alike.

    Attributes:
        ids: int64 [batch, beams, candidates].
        scores: what they are chosen by, float32 [batch, beams, candidates]: log-probabilities, or logits.
        whole: whether they are the whole vocabulary, in order.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    whole: bool = False

    def with_scores(self, scores: NDArray[np.float32]) -> "Candidates":
        """The same tokens with other scores."""
        return Candidates(self.ids, scores, self.whole)


def whole_vocabulary(logits: NDArray[np.float32]) -> Candidates:
    """All tokens, with the logits [batch, beams, vocabulary] of a step."""
    return Candidates(np.broadcast_to(np.arange(logits.shape[-1]), logits.shape), logits, whole=True)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logprobs: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logprobs
