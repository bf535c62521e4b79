"""Rows of different lengths to one padded batch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pad(
    rows: Sequence[NDArray[np.float32]], value: float, multiple: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pad rows at their end to the longest of them.

    Args:
        rows: float32 [length, …] each, equal but for their lengths.
        value: what to pad with.
        multiple: round the common length up to a multiple of it.

    Returns:
        float32 [batch, length, …], and int64 [batch, length]: 1 where a row is, 0 where padding is.
    """
    lengths = np.array([len(row) for row in rows])
    longest = -(-int(lengths.max()) // multiple) * multiple
    values = np.full((len(rows), longest, *rows[0].shape[1:]), value, dtype=np.float32)
    for padded, row in zip(values, rows, strict=True):
        padded[: len(row)] = row
    return values, (np.arange(longest) < lengths[:, None]).astype(np.int64)
