"""Random numbers as torch draws them on a CPU."""

import numpy as np
from numpy.typing import NDArray

LEAST_NUMBERS = 16
"""torch draws fewer numbers than one block of them in another way."""


def standard_normal(count: int, seed: int) -> NDArray[np.float32]:
    """Return the numbers of `torch.randn(count, generator=torch.Generator().manual_seed(seed))`.

    torch fills blocks of 16 from uniform numbers by the Box-Muller transform (`normal_fill` in ATen's
    `DistributionTemplates.h`). If the last block is incomplete, it draws the last 16 numbers once more.

    Args:
        count: Number of numbers, at least `LEAST_NUMBERS`.
        seed: Seed, below 2^32.

    Returns:
        float32 [count], equal but for rounding.
    """
    last = LEAST_NUMBERS if count % LEAST_NUMBERS else 0
    generator = np.random.RandomState(seed)  # the newer generators seed in another way than torch
    uniform = generator.randint(2**24, size=count + last, dtype=np.uint32).astype(np.float32) * np.float32(2**-24)
    numbers = np.empty(count, dtype=np.float32)
    whole = count - count % LEAST_NUMBERS
    numbers[:whole] = _box_muller(uniform[:whole])
    numbers[count - last :] = _box_muller(uniform[count:])
    return numbers


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return normal numbers; the first half of each block makes the radii, the second the angles."""
    halves = uniform.reshape(-1, 2, LEAST_NUMBERS // 2)
    radii, angles = np.sqrt(-2 * np.log(1 - halves[:, 0])), np.float32(2 * np.pi) * halves[:, 1]
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1).ravel()
