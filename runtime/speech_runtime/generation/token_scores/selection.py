"""Selection of the best candidates of a row, without sorting a vocabulary of 250,000 tokens."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .maths import Scores

_STRIDES = 32
"""Number of candidates in a group of a wide row."""

_SORTED_WHOLE = 4096
"""Largest number of candidates in a row that are all sorted."""


def greatest(values: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Return positions int64 [..., count] of the greatest values of each row, in any order; NaN is the greatest.

    The `count` greatest values lie in the `count` groups with the greatest maxima, however the groups are made. The
    maxima take the least time where the members of a group lie far apart.
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
    """Return the `count`-th greatest score of each row, float32 [..., 1]; the smallest where there are fewer."""
    best = greatest(scores, min(count, scores.shape[-1]))
    least: Scores = np.take_along_axis(scores, best, axis=-1).min(axis=-1, keepdims=True)
    return least


def best(scores: Scores, counts: NDArray[np.int64] | int, least: Scores) -> NDArray[np.bool_]:
    """Return marks of the best candidates of each row; of equal scores, those that come first on the axis.

    Args:
        scores: Scores float32 [..., candidates].
        counts: Number of candidates to mark in each row, int64 [..., 1].
        least: Smallest of their scores, float32 [..., 1]; where it is NaN, the whole row is marked.
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
    """Find where weights, summed from the smallest value on, pass `mass`: `searchsorted(cumsum(weights), mass, side)`.

    The sums are those of `torch.cumsum` on float32: summed in float64, each rounded to float32.

    Args:
        values: Values float32 [..., candidates].
        weights: Weights of the values, float32 [..., candidates], none below 0.
        mass: Sum to pass, compared in float32.
        side: "right" if a sum equal to `mass` does not pass it, "left" if it does.

    Returns:
        The number of sums that do not pass, int64 [..., 1], and the first value that passes, float32 [..., 1] (the
        greatest if none does). 0 and NaN for rows whose weights hold NaN.
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
    """Do as `passing` for one row: sum weights by the first bits of values, and sort only values that begin alike."""
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
    within = min(int(rank[0]), len(alike) - 1)  # `sums` may be rounded differently
    return int(np.count_nonzero(beginnings < beginning)) + within, value[0]


def _below(sums: NDArray[np.float64], limit: np.float32, side: Literal["left", "right"]) -> NDArray[np.bool_]:
    rounded = sums.astype(np.float32)
    return rounded < limit if side == "left" else rounded <= limit


def _beginnings(values: Scores) -> NDArray[np.int64]:
    """Return the first 15 bits of each value, as numbers from 0 on in the order of the values."""
    bits = np.ascontiguousarray(values).view(np.int32)
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # of negative numbers, greater bits mean a smaller number
    return (ascending >> 17).astype(np.int64) + (1 << 14)
