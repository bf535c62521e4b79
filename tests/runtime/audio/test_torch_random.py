"""Test that numbers drawn as torch draws them are torch's."""

import numpy as np
import pytest
import torch

from speech_runtime.audio.features.torch_random import LEAST_NUMBERS, standard_normal


@pytest.mark.parametrize("count", [LEAST_NUMBERS, LEAST_NUMBERS + 1, 31, 32, 33, 320, 160_000, 480_001])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_equal_to_torch(count: int, seed: int) -> None:
    expected = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    numbers = standard_normal(count, seed)
    assert numbers.dtype == np.float32
    np.testing.assert_allclose(numbers, expected.numpy(), rtol=0, atol=1e-6)
