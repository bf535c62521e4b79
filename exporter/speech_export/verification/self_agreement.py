"""Measure how far the torch model agrees with itself: float32 with float64, with a cache and without."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import SpeechEncoderDecoderModel

from .reference import Expectation, Oracle

_LARGE = 10.0
"""A log-probability of this size may differ by twice as much as one of 0: float32 has a fixed number of digits."""


@dataclass(frozen=True)
class SelfAgreement:
    """The largest differences between two ways of computing the same log-probabilities in torch.

    Attributes:
        rounding: Difference between float32 and float64; NaN if the model cannot be computed in float64.
        rounding_in_proportion: The same in proportion to the log-probability, see `in_proportion`.
        caching_in_proportion: Difference between decoding all tokens at once and one by one with a cache, in
            proportion to the log-probability.
    """

    rounding: float
    rounding_in_proportion: float
    caching_in_proportion: float


def self_agreement(model: SpeechEncoderDecoderModel, expected: Iterable[Expectation]) -> SelfAgreement:
    """Compute the log-probabilities of a model's own tokens twice more: in float64, and one token at a time.

    Args:
        model: Torch model in float32. Meanwhile a copy of it in float64 takes twice its memory.
        expected: Expectations with the log-probabilities of the whole vocabulary.
    """
    exact = copy.deepcopy(model).double()
    rounding = rounding_in_proportion = caching = 0.0
    for each in expected:
        batch = each.batch.inputs, each.batch.attention_mask
        precise = _logprobs_in_float64(exact, each)
        rounding = larger(rounding, float(difference(each.logprobs, precise).max()))
        proportion = float(in_proportion(each.logprobs, precise).max())
        rounding_in_proportion = larger(rounding_in_proportion, proportion)
        stepwise = Oracle(model, *batch).logprobs(each.tokens, at_a_time=1)
        caching = larger(caching, float(in_proportion(each.logprobs, stepwise).max()))
    return SelfAgreement(rounding, rounding_in_proportion, caching)


def in_proportion(expected: Tensor, found: Tensor) -> Tensor:
    """Return the differences of two arrays of log-probabilities, each in proportion to the expected one."""
    scale = 1 + expected.abs() / _LARGE
    return difference(expected, found) / scale.where(expected.isfinite(), 1)


def difference(expected: Tensor, found: Tensor) -> Tensor:
    """Return the differences of two arrays of log-probabilities: 0 where both are -inf, for tokens left out."""
    return (expected - found).abs().where(expected != found, 0)


def _logprobs_in_float64(exact: SpeechEncoderDecoderModel, each: Expectation) -> Tensor:
    """Return the log-probabilities of the tokens of `each`; NaN if a family casts to float32 on its way."""
    try:
        return Oracle(exact, each.batch.inputs, each.batch.attention_mask).logprobs(each.tokens)
    except RuntimeError:  # "expected scalar type Double but found Float", in many wordings
        return torch.full_like(each.logprobs, torch.nan)


def larger(one: float, other: float) -> float:
    """Return the larger number; NaN if either is."""
    return float(np.maximum(one, other))
