"""Random choice of candidates, by the softmax of their scores."""

import numpy as np
from numpy.typing import NDArray

from ...errors import GenerationError
from .maths import Scores
from .selection import greatest

_BLOCK = 512
"""Number of candidates that are summed at once; a draw then looks at only one block of a row."""


def sample(scores: Scores, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw one candidate of every row from `softmax(scores)`, as `GenerationMixin._sample` does.

    Args:
        scores: Scores float32 [batch, beams, candidates].
        generator: Source of random numbers, one for each row.

    Returns:
        Positions on the candidates axis, int64 [batch, beams]; never one at -inf.

    Raises:
        GenerationError: A row has no finite score, or NaN or +inf among its scores.
    """
    weights = np.exp(scores - _best_score(scores))
    starts = np.arange(0, scores.shape[-1], _BLOCK)
    sums = np.add.reduceat(weights, starts, axis=-1, dtype=np.float64).cumsum(axis=-1)
    total = sums[..., -1:]
    target = np.minimum(generator.random(total.shape) * total, np.nextafter(total, 0))
    block = (sums <= target).sum(axis=-1, keepdims=True)
    before = np.where(block > 0, np.take_along_axis(sums, np.maximum(block - 1, 0), axis=-1), 0)

    positions = block * _BLOCK + np.arange(min(_BLOCK, scores.shape[-1]))
    inside = np.take_along_axis(weights, np.minimum(positions, scores.shape[-1] - 1), axis=-1)
    inside[positions >= scores.shape[-1]] = 0
    within = (inside.cumsum(axis=-1, dtype=np.float64) <= target - before).sum(axis=-1, keepdims=True)
    last = inside.shape[-1] - 1 - (inside[..., ::-1] > 0).argmax(axis=-1)[..., None]
    # Sums of blocks round differently: a draw beyond a block's last candidate is that candidate.
    drawn: NDArray[np.int64] = (block * _BLOCK + np.minimum(within, last))[..., 0]
    return drawn


def sample_without_replacement(totals: Scores, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw `count` different candidates of every row, one after the other, from `softmax(totals)`.

    This follows `torch.multinomial` in `GenerationMixin._get_top_k_continuations`. All draws of a row are made at once:
    the order of `totals` + Gumbel noise is that of draws without replacement (https://arxiv.org/abs/1903.06059). So
    candidates that are too unlikely for a float32 probability, such as those of beams at -1e9, follow in their order.

    Args:
        totals: Scores float32 [batch, candidates].
        count: Number of draws.
        generator: Source of random numbers, one for every candidate that may be drawn.

    Returns:
        Positions on the candidates axis in the order drawn, int64 [batch, count]; those at -inf come last.

    Raises:
        GenerationError: A row has no finite score, or NaN or +inf among its scores; or there are too few candidates.
    """
    if count > totals.shape[-1]:
        raise GenerationError(
            f"{count} candidates must be drawn from only {totals.shape[-1]}; set num_beams lower or top_k higher"
        )
    _best_score(totals)
    possible = int((totals > -np.inf).sum(axis=-1).max())
    if 2 * max(possible, count) > totals.shape[-1]:
        return _drawn(totals, count, generator)
    positions = np.sort(greatest(totals, max(possible, count)), axis=-1)
    few = np.take_along_axis(totals, positions, axis=-1)
    return np.take_along_axis(positions, _drawn(few, count, generator), axis=-1)


def _drawn(totals: Scores, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    keys = generator.standard_exponential(totals.shape)
    np.log(keys, out=keys)  # negative Gumbel noise
    np.subtract(totals, keys, out=keys)
    drawn = np.sort(greatest(keys, count), axis=-1)
    order = np.argsort(-np.take_along_axis(keys, drawn, axis=-1), axis=-1, kind="stable")
    return np.take_along_axis(drawn, order, axis=-1)


def _best_score(scores: Scores) -> Scores:
    """Return the best score of each row, float32 [..., 1], after a check that something can be drawn."""
    top: Scores = scores.max(axis=-1, keepdims=True)
    bad = np.argwhere(~np.isfinite(top[..., 0]))
    if bad.size:
        row = tuple(int(index) for index in bad[0])
        raise GenerationError(
            f"nothing can be drawn for row {row}: its best score is {top[row][0]}; the settings ban every token, or "
            "the model's logits are not finite (remove_invalid_values replaces those)"
        )
    return top
