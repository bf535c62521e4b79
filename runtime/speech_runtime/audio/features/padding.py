"""Rows of different lengths to one padded batch."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.float16, np.float32, np.int64)


def pad(rows: Sequence[NDArray[Number]], value: float, multiple: int = 1) -> tuple[NDArray[Number], NDArray[np.int64]]:
    """Pad rows at their end to the longest of them.

    Args:
        rows: [length, …] each, equal but for their lengths, of one dtype.
        value: what to pad with.
        multiple: round the common length up to a multiple of it.

    Returns:
        [batch, length, …] of that dtype, and int64 [batch, length]: 1 where a row is, 0 where padding is.
    """
    lengths = np.array([len(row) for row in rows])
    longest = -(-int(lengths.max()) // multiple) * multiple
    values = np.full((len(rows), longest, *rows[0].shape[1:]), value, dtype=rows[0].dtype)
    for padded, row in zip(values, rows, strict=True):
        padded[: len(row)] = row
    return values, (np.arange(longest) < lengths[:, None]).astype(np.int64)
