"""What narrows candidates down before one is drawn: temperature, top-k, top-p and their kin.

Each follows a warper of transformers (`transformers.generation.logits_process`), without its limits on settings:
`GenerationConfig` checks them. `keep` is transformers' `min_tokens_to_keep`.

The candidates may be the whole vocabulary or any part of it, in any order: what is not among them counts as -inf. Where
transformers leaves to the sorting algorithm which of equal candidates are kept, it is those that come first on the
axis. A row without a finite score, or with NaN, stays as it is (where transformers does not raise).
"""

import numpy as np
from numpy.typing import NDArray

from .maths import Processor, Scores, Sequences, entropy, softmax, stable_log_softmax
from .selection import best, greatest, least_of_best, passing

_TOP_H_CANDIDATES = 100
"""`TopHLogitsWarper` looks at so many candidates."""


def temperature(value: float) -> Processor:
    """Divide scores float32 [batch, beams, candidates] by `value` > 0 (`TemperatureLogitsWarper`)."""

    def apply(_: Sequences, scores: Scores) -> Scores:
        with np.errstate(over="ignore"):
            return scores / np.float32(value)

    return apply


def top_k(k: int, keep: int = 1) -> Processor:
    """Keep the `k` best of [batch, beams, candidates], and all equal to the last of them (`TopKLogitsWarper`)."""

    def apply(_: Sequences, scores: Scores) -> Scores:
        if max(k, keep) >= scores.shape[-1]:
            return scores
        return _only(~(scores < least_of_best(scores, max(k, keep))), scores)

    return apply


def top_p(p: float, keep: int = 1) -> Processor:
    """Keep the fewest best of [batch, beams, candidates] that have probability `p` together (`TopPLogitsWarper`).

    Probabilities are added up from the least on, as there: those that together do not exceed 1 - `p` go.
    """

    def apply(_: Sequences, scores: Scores) -> Scores:
        width = scores.shape[-1]
        gone, least = passing(scores, softmax(scores), 1 - p, side="right")
        counts = width - gone
        if (counts < keep).any():
            counts = np.maximum(counts, min(keep, width))
            least = np.minimum(least, least_of_best(scores, keep))
        return _only(best(scores, counts, least), scores)

    return apply


def min_p(p: float, keep: int = 1) -> Processor:
    """Keep those of [batch, beams, candidates] at least `p` times as likely as the best one (`MinPLogitsWarper`)."""

    def apply(_: Sequences, scores: Scores) -> Scores:
        probabilities = softmax(scores)
        kept = ~(probabilities < np.float32(p) * probabilities.max(axis=-1, keepdims=True))
        return _only(_at_least(keep, scores, kept), scores)

    return apply


def typical_p(mass: float, keep: int = 1) -> Processor:
    """Keep those of [batch, beams, candidates] whose surprise is closest to the entropy (`TypicalLogitsWarper`).

    As many as have probability `mass` together; https://arxiv.org/abs/2202.00666.
    """

    def apply(_: Sequences, scores: Scores) -> Scores:
        logprobs = stable_log_softmax(scores)
        probabilities = np.exp(logprobs)
        logprobs += entropy(logprobs, probabilities)
        distances = np.abs(logprobs, out=logprobs)
        _, farthest = passing(distances, probabilities, mass, side="left")
        kept = ~(distances > farthest)
        return _only(_at_least(keep, -distances, kept), scores)

    return apply


def epsilon_cutoff(epsilon: float, keep: int = 1) -> Processor:
    """Keep those of [batch, beams, candidates] of a probability of `epsilon` or more (`EpsilonLogitsWarper`)."""

    def apply(_: Sequences, scores: Scores) -> Scores:
        return _only(_at_least_with_ties(keep, scores, ~(softmax(scores) < np.float32(epsilon))), scores)

    return apply


def eta_cutoff(epsilon: float, keep: int = 1) -> Processor:
    """As `epsilon_cutoff`, with a lower bound where [batch, beams, candidates] is uncertain (`EtaLogitsWarper`).

    The bound is min(ε, √ε · exp(-entropy)); https://arxiv.org/abs/2210.15191.
    """

    def apply(_: Sequences, scores: Scores) -> Scores:
        logprobs = stable_log_softmax(scores)
        probabilities = np.exp(logprobs)
        surprise = entropy(logprobs, probabilities)
        bound = np.minimum(np.float32(epsilon), np.sqrt(np.float32(epsilon)) * np.exp(-surprise))
        return _only(_at_least_with_ties(keep, scores, ~(probabilities < bound)), scores)

    return apply


def top_h(h: float) -> Processor:
    """Keep the best of [batch, beams, candidates] that have `h` times the entropy together (`TopHLogitsWarper`).

    Of the 100 best ones, and always the best one; https://arxiv.org/abs/2509.02510.
    """

    def apply(_: Sequences, scores: Scores) -> Scores:
        positions = greatest(scores, min(_TOP_H_CANDIDATES, scores.shape[-1]))
        head = -np.sort(-np.take_along_axis(scores, positions, axis=-1), axis=-1)
        probabilities = softmax(head)
        with np.errstate(divide="ignore", invalid="ignore"):  # from the first 0 · log 0 on, sums are NaN: not kept
            terms = -probabilities * np.log(probabilities)
        bound = entropy(stable_log_softmax(head), probabilities) * np.float32(h)
        within = terms.cumsum(axis=-1, dtype=np.float64).astype(np.float32) <= bound
        counts = np.maximum(within.sum(axis=-1, keepdims=True), 1)
        return _only(best(scores, counts, np.take_along_axis(head, counts - 1, axis=-1)), scores)

    return apply


def _at_least(keep: int, scores: Scores, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`kept`, which holds the best ones of each row, and the `keep` best in any case."""
    if _enough(kept, keep):
        return kept
    return kept | best(scores, min(keep, scores.shape[-1]), least_of_best(scores, keep))


def _at_least_with_ties(keep: int, scores: Scores, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """As `_at_least`, with all that equal the last of the `keep` best."""
    return kept if _enough(kept, keep) else kept | ~(scores < least_of_best(scores, keep))


def _enough(kept: NDArray[np.bool_], keep: int) -> bool:
    return bool((kept.sum(axis=-1, dtype=np.int32) >= keep).all())


def _only(kept: NDArray[np.bool_], scores: Scores) -> Scores:
    limits = kept.astype(np.float32)  # to be +inf and -inf: a minimum takes a tenth of the time of a choice
    limits -= np.float32(0.5)
    limits *= np.float32(np.inf)
    return np.minimum(scores, limits, out=limits)
