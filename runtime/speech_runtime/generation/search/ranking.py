"""Choice of the best continuations of an utterance's beams among the candidates of a step."""

from array import array
from collections.abc import Sequence
from math import inf, isnan
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import GenerationConfig
from ..token_scores.maths import log_sum_exp
from ..token_scores.sampling import sample_without_replacement
from .base import Candidates, Tokens

_SORTED_WHOLE = 4096
"""Largest number of candidates that are all sorted; of more candidates, the best are picked first."""

Continuation = tuple[float, int, int, float]
"""A beam's score, the beam that it continues, its token, and the model's own log-probability of that token.

The score is the sum of the scores that all its tokens were chosen by. It and the log-probability are float32 numbers.
"""

Ranking = list[Continuation]
"""Continuations of one utterance, best first."""

score_of = itemgetter(0)
"""Returns the score of a continuation."""


def continuations_kept(config: GenerationConfig) -> int:
    """Return how many continuations a step keeps for an utterance: enough to go on if the best ones all end."""
    return max(2, 1 + len(config.eos_token_ids)) * config.num_beams


def best_of_sorted(candidates: Candidates, live_scores: Sequence[float], count: int) -> Ranking:
    """Return the `count` best continuations where each beam's candidates are sorted log-probabilities.

    A candidate that ranks after the `count` best of its own beam, or scores less than those of the first beam, cannot
    be among the `count` best of all. While the beams are alike, only the first of them may be continued.

    This uses lists: they are faster than arrays of so few numbers, whose code each run of the decoder evicts from the
    processor's caches. Rounding the float64 sum of two float32 numbers to float32 gives their float32 sum.
    """
    slots, logprobs, ids = candidates.first(count)
    first = logprobs[slots[0]]
    too_low = live_scores[0] + first[-1] if len(first) == count else -inf
    totals: list[float] = []
    places: list[tuple[int, int, int]] = []
    for beam, slot in enumerate(slots):
        score = live_scores[beam]
        for rank, logprob in enumerate(logprobs[slot]):
            total = score + logprob
            if total < too_low:
                break
            totals.append(total)
            places.append((beam, slot, rank))
    if len(totals) < count:
        return best_of_all(candidates, candidates, live_scores, count, None)
    totals = float32(totals)
    if isnan(sum(totals)):
        totals = [-inf if isnan(total) else total for total in totals]
    ranking = []
    for best in sorted(range(len(totals)), key=totals.__getitem__, reverse=True)[:count]:
        beam, slot, rank = places[best]
        ranking.append((totals[best], beam, ids[slot][rank], logprobs[slot][rank]))
    return ranking


def best_of_all(
    candidates: Candidates,
    raw: Candidates,
    live_scores: Sequence[float],
    count: int,
    generator: np.random.Generator | None,
) -> Ranking:
    """Return the `count` best continuations, or `count` that are drawn by their scores.

    Args:
        candidates: Candidates of every beam, or of one while all are alike.
        raw: The same before any setting changed them.
        live_scores: Scores of the beams, float32 numbers.
        count: Number of continuations; if there are fewer candidates, some at -inf follow.
        generator: Source of random numbers to draw with; None to take the best.
    """
    beams, width = len(live_scores), candidates.ids.shape[2]
    totals = (candidates.scores + np.array(live_scores, dtype=np.float32)[:, None]).reshape(1, -1)
    ids = np.broadcast_to(candidates.ids, (1, beams, width)).reshape(1, -1)
    if totals.shape[1] < count:
        missing = ((0, 0), (0, count - totals.shape[1]))
        totals = np.pad(totals, missing, constant_values=-np.inf)
        ids = np.pad(ids, missing)
    if generator is not None:
        chosen = sample_without_replacement(totals, count, generator)
    elif totals.shape[1] > _SORTED_WHOLE:
        few = np.sort(np.argpartition(-totals, count, axis=1)[:, :count], axis=1)
        chosen = pick(few, np.argsort(-pick(totals, few), axis=1, kind="stable"))
    else:
        chosen = np.argsort(-totals, axis=1, kind="stable")[:, :count]
    beam_idx, tokens = np.minimum(chosen // width, beams - 1), pick(ids, chosen)
    columns = (pick(totals, chosen), beam_idx, tokens, raw_logprobs(raw, tokens, beam_idx))
    return list(zip(*(column[0].tolist() for column in columns), strict=True))


def float32(numbers: Sequence[float]) -> list[float]:
    """Return the numbers, each rounded to the nearest float32."""
    return array("f", numbers).tolist()


def pick(values: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """Return values [1, n, …] at positions [1, chosen]: `take_along_axis` in a tenth of its time."""
    picked: NDArray[Any] = values[0].take(positions, axis=0)
    return picked


def raw_logprobs(raw: Candidates, tokens: Tokens, beam_idx: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the model's log-probabilities of chosen tokens [1, chosen]; 0 for tokens that only fill up.

    Args:
        raw: Candidates of a step, [1, beams or 1, candidates].
        tokens: Chosen tokens, int64 [1, chosen].
        beam_idx: Beam that each token continues, int64 [1, chosen].
    """
    beam_idx = np.minimum(beam_idx, raw.scores.shape[1] - 1)
    if raw.full_vocab:
        logits = raw.scores[0, beam_idx, tokens]
        logprobs: NDArray[np.float32] = logits - pick(log_sum_exp(raw.scores), beam_idx)
        return logprobs
    here = pick(raw.ids, beam_idx) == tokens[:, :, None]
    found: NDArray[np.float32] = np.where(here, pick(raw.scores, beam_idx), np.float32(0)).sum(axis=-1)
    return found
