"""Warpers: settings that narrow the candidates down before one is drawn, such as temperature, top-k and top-p.

Each follows a warper of transformers (`transformers.generation.logits_process`). `GenerationConfig` checks that the
settings are in range.

The candidates may be the whole vocabulary or any part of it, in any order: missing tokens count as -inf. Where equal
candidates compete, those that come first on the axis are kept; transformers leaves that to its sorting algorithm. A row
without a finite score, or with NaN, stays as it is (where transformers does not raise).
"""

import numpy as np
from numpy.typing import NDArray

from .maths import LogitsProcessor, Scores, Sequences, entropy, softmax, stable_log_softmax
from .selection import best, greatest, least_of_best, passing

_TOP_H_CANDIDATES = 100
"""Number of candidates that `TopHLogitsWarper` looks at."""


def temperature(value: float) -> LogitsProcessor:
    """Divide scores float32 [batch, beams, candidates] by `value` > 0 (`TemperatureLogitsWarper`)."""

    def apply(_: Sequences, scores: Scores) -> Scores:
        with np.errstate(over="ignore"):
            return scores / np.float32(value)

    return apply


def top_k(k: int, min_tokens_to_keep: int = 1) -> LogitsProcessor:
    """Keep the `k` best candidates and all that equal the last of them (`TopKLogitsWarper`)."""

    def apply(_: Sequences, scores: Scores) -> Scores:
        if max(k, min_tokens_to_keep) >= scores.shape[-1]:
            return scores
        return _only(~(scores < least_of_best(scores, max(k, min_tokens_to_keep))), scores)

    return apply


def top_p(p: float, min_tokens_to_keep: int = 1) -> LogitsProcessor:
    """Keep the fewest best candidates whose probabilities add up to `p` (`TopPLogitsWarper`).

    As in transformers, probabilities are added up from the smallest on: those whose sum does not exceed 1 - `p` go.
    """

    def apply(_: Sequences, scores: Scores) -> Scores:
        width = scores.shape[-1]
        gone, least = passing(scores, softmax(scores), 1 - p, side="right")
        counts = width - gone
        if (counts < min_tokens_to_keep).any():
            counts = np.maximum(counts, min(min_tokens_to_keep, width))
            least = np.minimum(least, least_of_best(scores, min_tokens_to_keep))
        return _only(best(scores, counts, least), scores)

    return apply


def min_p(p: float, min_tokens_to_keep: int = 1) -> LogitsProcessor:
    """Keep the candidates that are at least `p` times as likely as the best one (`MinPLogitsWarper`)."""

    def apply(_: Sequences, scores: Scores) -> Scores:
        probabilities = softmax(scores)
        kept = ~(probabilities < np.float32(p) * probabilities.max(axis=-1, keepdims=True))
        return _only(_at_least(min_tokens_to_keep, scores, kept), scores)

    return apply


def typical_p(mass: float, min_tokens_to_keep: int = 1) -> LogitsProcessor:
    """Keep the candidates whose surprise is closest to the entropy (`TypicalLogitsWarper`).

    As many are kept as have probability `mass` together; https://arxiv.org/abs/2202.00666.
    """

    def apply(_: Sequences, scores: Scores) -> Scores:
        logprobs = stable_log_softmax(scores)
        probabilities = np.exp(logprobs)
        logprobs += entropy(logprobs, probabilities)
        distances = np.abs(logprobs, out=logprobs)
        _, farthest = passing(distances, probabilities, mass, side="left")
        kept = ~(distances > farthest)
        return _only(_at_least(min_tokens_to_keep, -distances, kept), scores)

    return apply


def epsilon_cutoff(epsilon: float, min_tokens_to_keep: int = 1) -> LogitsProcessor:
    """Keep the candidates with a probability of at least `epsilon` (`EpsilonLogitsWarper`)."""

    def apply(_: Sequences, scores: Scores) -> Scores:
        return _only(_at_least_with_ties(min_tokens_to_keep, scores, ~(softmax(scores) < np.float32(epsilon))), scores)

    return apply


def eta_cutoff(epsilon: float, min_tokens_to_keep: int = 1) -> LogitsProcessor:
    """Do as `epsilon_cutoff`, with a lower bound where the distribution is flat (`EtaLogitsWarper`).

    The bound is min(ε, √ε · exp(-entropy)); https://arxiv.org/abs/2210.15191.
    """

    def apply(_: Sequences, scores: Scores) -> Scores:
        logprobs = stable_log_softmax(scores)
        probabilities = np.exp(logprobs)
        surprise = entropy(logprobs, probabilities)
        bound = np.minimum(np.float32(epsilon), np.sqrt(np.float32(epsilon)) * np.exp(-surprise))
        return _only(_at_least_with_ties(min_tokens_to_keep, scores, ~(probabilities < bound)), scores)

    return apply


def top_h(h: float) -> LogitsProcessor:
    """Keep the best candidates that have `h` times the entropy together (`TopHLogitsWarper`).

    Only the 100 best ones are looked at, and the best one is always kept; https://arxiv.org/abs/2509.02510.
    """

    def apply(_: Sequences, scores: Scores) -> Scores:
        positions = greatest(scores, min(_TOP_H_CANDIDATES, scores.shape[-1]))
        head = -np.sort(-np.take_along_axis(scores, positions, axis=-1), axis=-1)
        probabilities = softmax(head)
        with np.errstate(divide="ignore", invalid="ignore"):  # sums are NaN from the first 0 · log 0 on, and not kept
            terms = -probabilities * np.log(probabilities)
        bound = entropy(stable_log_softmax(head), probabilities) * np.float32(h)
        within = terms.cumsum(axis=-1, dtype=np.float64).astype(np.float32) <= bound
        counts = np.maximum(within.sum(axis=-1, keepdims=True), 1)
        return _only(best(scores, counts, np.take_along_axis(head, counts - 1, axis=-1)), scores)

    return apply


def _at_least(min_tokens_to_keep: int, scores: Scores, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return `kept`, which marks the best of each row, with at least `min_tokens_to_keep` marks in a row."""
    if _enough(kept, min_tokens_to_keep):
        return kept
    return kept | best(scores, min(min_tokens_to_keep, scores.shape[-1]), least_of_best(scores, min_tokens_to_keep))


def _at_least_with_ties(min_tokens_to_keep: int, scores: Scores, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Do as `_at_least`, and mark all that equal the last of the best."""
    return kept if _enough(kept, min_tokens_to_keep) else kept | ~(scores < least_of_best(scores, min_tokens_to_keep))


def _enough(kept: NDArray[np.bool_], min_tokens_to_keep: int) -> bool:
    return bool((kept.sum(axis=-1, dtype=np.int32) >= min_tokens_to_keep).all())


def _only(kept: NDArray[np.bool_], scores: Scores) -> Scores:
    limits = kept.astype(np.float32)  # becomes +inf and -inf: a minimum takes a tenth of the time of `where`
    limits -= np.float32(0.5)
    limits *= np.float32(np.inf)
    return np.minimum(scores, limits, out=limits)
