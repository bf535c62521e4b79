"""Which candidates of a row are the best: without sorting a vocabulary of 250,000 words."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .maths import Scores

_STRIDES = 32
"""A wide row is looked at in groups of so many candidates."""

_SORTED_WHOLE = 4096
"""Rows of up to so many candidates are sorted whole."""


def greatest(values: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Positions int64 [..., count] of the `count` greatest values of each row, in no order; NaN is the greatest.

    The `count` greatest values lie in the `count` groups with the greatest maxima, whatever the groups. Groups of
    candidates that lie far apart are those whose maxima take least time.
    """
    width = values.shape[-1]
    groups = width // _STRIDES
    if groups < 2 * count:
        return _partitioned(values, count)
    maxima = values[..., : groups * _STRIDES].reshape(*values.shape[:-1], _STRIDES, groups).max(axis=-2)
    members = _partitioned(maxima, count)[..., None, :] + groups * np.arange(_STRIDES)[:, None]
    rest = np.broadcast_to(np.arange(groups * _STRIDES, width), (*values.shape[:-1], width % _STRIDES))
    positions = np.concatenate([members.reshape(*values.shape[:-1], -1), rest], axis=-1)
    best = _partitioned(np.take_along_axis(values, positions, axis=-1), count)
    return np.take_along_axis(positions, best, axis=-1)


def least_of_best(scores: Scores, count: int) -> Scores:
    """The `count`-th greatest score of each row, float32 [..., 1]; the least where there are fewer."""
    best = greatest(scores, min(count, scores.shape[-1]))
    least: Scores = np.take_along_axis(scores, best, axis=-1).min(axis=-1, keepdims=True)
    return least


def best(scores: Scores, counts: NDArray[np.int64] | int, least: Scores) -> NDArray[np.bool_]:
    """Marks the best of each row; of equal scores those that come first on the axis.

    Args:
        scores: float32 [..., candidates].
        counts: how many, int64 [..., 1]; at most all.
        least: the least of their scores, float32 [..., 1]; where it is NaN, all of the row are marked.
    """
    marked = ~(scores < least)
    excess = marked.sum(axis=-1, keepdims=True, dtype=np.int32) - counts
    rows = np.flatnonzero((excess > 0) & ~np.isnan(least))
    if rows.size:
        equal = (scores == least).reshape(-1, scores.shape[-1])[rows]
        from_the_end = equal[:, ::-1].cumsum(axis=-1)[:, ::-1]
        marked.reshape(-1, scores.shape[-1])[rows] &= ~(equal & (from_the_end <= excess.reshape(-1, 1)[rows]))
    return marked


def passing(
    values: Scores, weights: Scores, mass: float, side: Literal["left", "right"]
) -> tuple[NDArray[np.int64], Scores]:
    """Where weights, added up from the least value on, pass `mass`: `searchsorted(cumsum(weights), mass, side)`.

    Sums are what `torch.cumsum` makes of float32: added up in float64, each rounded to float32.

    Args:
        values: float32 [..., candidates].
        weights: of the values, float32 [..., candidates], none below 0.
        mass: to be passed: compared in float32.
        side: "right" where a sum equal to `mass` does not pass it yet.

    Returns:
        How many sums do not pass, int64 [..., 1], and the first value that passes, float32 [..., 1] (the greatest
        where none does). 0 and NaN for rows of weight NaN.
    """
    limit = np.float32(mass)
    if values.shape[-1] <= _SORTED_WHOLE:
        return _passing_sorted(values, weights, 0.0, limit, side)
    rows = [
        _passing_wide(row, row_weights, limit, side)
        for row, row_weights in zip(
            values.reshape(-1, values.shape[-1]), weights.reshape(-1, values.shape[-1]), strict=True
        )
    ]
    shape = (*values.shape[:-1], 1)
    return (
        np.array([rank for rank, _ in rows], dtype=np.int64).reshape(shape),
        np.array([value for _, value in rows], dtype=np.float32).reshape(shape),
    )


def _partitioned(values: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    cut = values.shape[-1] - count
    return np.argpartition(values, cut, axis=-1)[..., cut:] if cut > 0 else _all_positions(values)


def _all_positions(values: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.broadcast_to(np.arange(values.shape[-1]), values.shape)


def _passing_sorted(
    values: Scores, weights: Scores, before: float, limit: np.float32, side: Literal["left", "right"]
) -> tuple[NDArray[np.int64], Scores]:
    order = np.argsort(values, axis=-1, kind="stable")
    sums = before + np.take_along_axis(weights, order, axis=-1).cumsum(axis=-1, dtype=np.float64)
    rank = _below(sums, limit, side).sum(axis=-1, keepdims=True)
    at = np.take_along_axis(order, np.minimum(rank, values.shape[-1] - 1), axis=-1)
    value = np.take_along_axis(values, at, axis=-1)
    return rank, np.where(np.isnan(sums[..., -1:]), np.float32(np.nan), value)


def _passing_wide(
    values: Scores, weights: Scores, limit: np.float32, side: Literal["left", "right"]
) -> tuple[int, np.float32]:
    """Of one row: counts weights by the first bits of their values, and sorts only values that begin alike."""
    beginnings = _beginnings(values)
    sums = np.bincount(beginnings, weights=weights).cumsum()
    if np.isnan(sums[-1]):
        return 0, np.float32(np.nan)
    beginning = int(_below(sums, limit, side).sum())
    if beginning == len(sums):
        return len(values), values.max()
    alike = np.flatnonzero(beginnings == beginning)
    before = float(sums[beginning - 1]) if beginning else 0.0
    rank, value = _passing_sorted(values[alike], weights[alike], before, limit, side)
    within = min(int(rank[0]), len(alike) - 1)  # `sums` may be rounded otherwise
    return int(np.count_nonzero(beginnings < beginning)) + within, value[0]


def _below(sums: NDArray[np.float64], limit: np.float32, side: Literal["left", "right"]) -> NDArray[np.bool_]:
    rounded = sums.astype(np.float32)
    return rounded < limit if side == "left" else rounded <= limit


def _beginnings(values: Scores) -> NDArray[np.int64]:
    """The first 15 bits of each value: numbers from 0 that ascend as the values do."""
    bits = np.ascontiguousarray(values).view(np.int32)
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # of negative numbers, greater bits mean a smaller number
    return (ascending >> 17).astype(np.int64) + (1 << 14)
