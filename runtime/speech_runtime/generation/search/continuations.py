"""The continuations of an utterance's beams that a step goes on with, chosen of all candidates."""

from array import array
from collections.abc import Sequence
from math import inf, isnan
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from ..config import GenerationConfig
from ..scores.sampling import sample_without_replacement
from .candidates import Candidates
from .state import pick, raw_logprobs

_SORTED_WHOLE = 4096
"""Up to so many candidates are sorted whole; of more, the best are picked out first."""

score_of = itemgetter(0)
"""Of a continuation."""

Continuation = tuple[float, int, int, float]
"""Of a beam: its score, which beam it continues, with which token, and the model's own log-probability of that one.

The score is the sum of what all tokens were chosen by. It and the log-probability are float32 numbers."""

Choice = list[Continuation]
"""Of one utterance, best first."""


def continuations_kept(config: GenerationConfig) -> int:
    """Continuations of an utterance that a step keeps: enough to go on where the best ones all end."""
    return max(2, 1 + len(config.eos_token_ids)) * config.num_beams


def best_of_sorted(candidates: Candidates, live_scores: Sequence[Sequence[float]], count: int) -> list[Choice]:
    """The `count` best, where the candidates of each beam come best first and have log-probabilities.

    Those behind the `count` best of their own beam, or of the first one, cannot be among the `count` best of all; while
    the beams are alike, only the first of them may be continued.

    In lists: for a single utterance they are faster than arrays, whose code each run of the decoder drives out of the
    processor's caches. A sum of two float32 numbers is the same if it is rounded from float64.
    """
    choices = []
    for scores, (slots, logprobs, ids) in zip(live_scores, candidates.first(count), strict=True):
        first = logprobs[slots[0]]
        too_low = scores[0] + first[-1] if len(first) == count else -inf
        totals: list[float] = []
        places: list[tuple[int, int, int]] = []
        for beam, slot in enumerate(slots):
            score = scores[beam]
            for rank, logprob in enumerate(logprobs[slot]):
                total = score + logprob
                if total < too_low:
                    break
                totals.append(total)
                places.append((beam, slot, rank))
        if len(totals) < count:
            return best_of_all(candidates, candidates, np.array(live_scores, dtype=np.float32), count, None)
        totals = float32(totals)
        if isnan(sum(totals)):
            totals = [-inf if isnan(total) else total for total in totals]
        choice = []
        for best in sorted(range(len(totals)), key=totals.__getitem__, reverse=True)[:count]:
            beam, slot, rank = places[best]
            choice.append((totals[best], beam, ids[slot][rank], logprobs[slot][rank]))
        choices.append(choice)
    return choices


def best_of_all(
    candidates: Candidates,
    raw: Candidates,
    live_scores: NDArray[np.float32],
    count: int,
    generator: np.random.Generator | None,
) -> list[Choice]:
    """The `count` best, or as many drawn by their scores.

    Args:
        candidates: of every beam, or of one where they are alike.
        raw: the same before any setting changed them.
        live_scores: float32 [batch, beams].
        count: behind the candidates that there are come some at -inf.
        generator: to draw with; None for the best.
    """
    batch, beams = live_scores.shape
    width = candidates.ids.shape[2]
    totals = (candidates.scores + live_scores[:, :, None]).reshape(batch, -1)
    ids = np.broadcast_to(candidates.ids, (batch, beams, width)).reshape(batch, -1)
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
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [list(zip(*row, strict=True)) for row in rows]


def float32(numbers: Sequence[float]) -> list[float]:
    """The numbers, each rounded to the nearest of float32."""
    return array("f", numbers).tolist()
