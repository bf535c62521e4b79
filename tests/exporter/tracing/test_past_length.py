"""Test the length of the past that only the graph knows: an int for Python, a tensor for torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from speech_export.errors import ExportError
from speech_export.tracing.past_length import PastLength, PositionsFromInput
from speech_export.tracing.static_cache import REMEDY, StaticLayer, length_mask

SEEN = 5


@pytest.fixture
def past() -> PastLength:
    return PastLength(torch.tensor([SEEN]), REMEDY)


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda past: torch.arange(past, past + 1), [5]),
        (lambda past: torch.arange(past, 1 + past, dtype=torch.int64), [5]),
        (lambda past: torch.arange(1) + past, [5]),
        (lambda past: past + torch.arange(1) + 2, [7]),
        (lambda past: torch.arange(40)[past : past + 1], [5]),
        (lambda past: torch.arange(40).expand(1, -1)[:, past : past + 1], [[5]]),
        (lambda past: torch.ones(1, 1, dtype=torch.int64) * (past + 1), [[6]]),
        (lambda past: (torch.ones(2, 1, dtype=torch.int64).cumsum(1) + past) * 3, [[18], [18]]),
        (lambda past: torch.arange(80).view(40, 2)[torch.arange(1) + past], [[10, 11]]),
    ],
)
def test_torch_computes_with_the_tensor(
    compute: Callable[[Any], torch.Tensor], expected: Any, past: PastLength
) -> None:
    with PositionsFromInput():
        found = compute(past)
    assert found.tolist() == expected


def test_python_sees_a_past_like_any_other(past: PastLength) -> None:
    assert past != 0
    assert past > 0
    assert not past + 1 + 2 > 64


@pytest.mark.parametrize(
    "compute",
    [
        lambda past: past - 1,
        lambda past: 2 * past,
        lambda past: torch.arange(past, past + 2),
        lambda past: torch.zeros(3, 40)[1, past : past + 1],
    ],
)
def test_what_would_be_frozen_is_refused(compute: Callable[[Any], Any], past: PastLength) -> None:
    with PositionsFromInput(), pytest.raises(ExportError, match="leave --static-cache out"):
        compute(past)


def test_a_step_puts_its_own_behind_what_was_seen_and_reads_nothing_of_what_was_there() -> None:
    batch, beams, heads, length, width, seen = 2, 3, 2, 6, 4, 2
    past = torch.full((batch, 2, heads, length, width), torch.nan)
    past[:, :, :, :seen] = torch.arange(batch * 2.0).view(batch, 2, 1, 1, 1)
    rows = torch.tensor([[1, 0, 1], [2, 3, 3]])
    layer = StaticLayer((past, past), rows, PastLength(torch.tensor([seen]), REMEDY))
    new = 100 + torch.arange(batch * beams * heads * width).view(batch * beams, heads, 1, width).float()
    keys, _ = layer.update(new, -new)
    assert keys.shape == (batch * beams, heads, length, width)
    torch.testing.assert_close(keys[:, 0, :seen, 0], rows.flatten().unsqueeze(1).expand(-1, seen).float())
    torch.testing.assert_close(keys[:, :, seen:], new.expand(-1, -1, length - seen, -1))
    assert layer.present[1].shape == (batch, beams, heads, length, width)
    mask = length_mask(6, length, PastLength(torch.tensor([seen]), REMEDY))
    assert (mask[0, 0, 0] == 0).tolist() == [True, True, True, False, False, False]
