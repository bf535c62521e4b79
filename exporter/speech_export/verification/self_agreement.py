"""How far the torch model agrees with itself: in float32 and in float64, with a cache and without."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import SpeechEncoderDecoderModel

from .expectation import Expectation
from .oracle import Oracle

_LARGE = 10.0
"""A log-probability of this size may differ by twice as much as one of 0: float32 has so many digits, no more."""


@dataclass(frozen=True)
class SelfAgreement:
    """The largest differences between two ways of computing the same log-probabilities in torch.

    Attributes:
        rounding: between float32 and float64; NaN where the model cannot be computed in float64.
        rounding_in_proportion: the same, in proportion to the log-probability; see `in_proportion`.
        caching_in_proportion: between all tokens at once and one after the other with a cache, in proportion too.
    """

    rounding: float
    rounding_in_proportion: float
    caching_in_proportion: float


def self_agreement(model: SpeechEncoderDecoderModel, expected: Iterable[Expectation]) -> SelfAgreement:
    """Compute what `model` says of its own tokens twice more: in float64, and one token after the other.

    Args:
        model: the torch model, in float32. A copy of it in float64 takes twice its memory for as long as this lasts.
        expected: what the model says of each batch, with the log-probabilities of the whole vocabulary.
    """
    exact = copy.deepcopy(model).double()
    rounding = rounding_in_proportion = caching = 0.0
    for each in expected:
        batch = each.batch.inputs, each.batch.attention_mask
        precise = _logprobs_in_float64(exact, each)
        rounding = larger(rounding, float((each.logprobs - precise).abs().max()))
        proportion = float(in_proportion(each.logprobs, precise).max())
        rounding_in_proportion = larger(rounding_in_proportion, proportion)
        stepwise = Oracle(model, *batch).logprobs(each.tokens, at_a_time=1)
        caching = larger(caching, float(in_proportion(each.logprobs, stepwise).max()))
    return SelfAgreement(rounding, rounding_in_proportion, caching)


def in_proportion(expected: Tensor, found: Tensor) -> Tensor:
    """The differences of two arrays of log-probabilities, each in proportion to the one that is expected."""
    return (expected - found).abs() / (1 + expected.abs() / _LARGE)


def _logprobs_in_float64(exact: SpeechEncoderDecoderModel, each: Expectation) -> Tensor:
    """Log-probabilities of the tokens of `each`; NaN where a family makes float32 of some numbers on its way."""
    try:
        return Oracle(exact, each.batch.inputs, each.batch.attention_mask).logprobs(each.tokens)
    except RuntimeError:  # "expected scalar type Double but found Float", in many wordings
        return torch.full_like(each.logprobs, torch.nan)


def larger(one: float, other: float) -> float:
    """The larger number; NaN where either is."""
    return float(np.maximum(one, other))
