"""Test logits processors and warpers against the classes of transformers, on the same scores."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

from speech_runtime import GenerationError
from speech_runtime.generation.token_scores import processors, warpers
from speech_runtime.generation.token_scores.maths import LogitsProcessor, Scores, Sequences, log_softmax
from speech_runtime.generation.token_scores.sampling import sample, sample_without_replacement

Pair = tuple[LogitsProcessor, Any]
EOS = [1, 2]


@st.composite
def steps(draw: st.DrawFn) -> tuple[Sequences, Scores]:
    """Sequences and scores of a step: spread, with ties, with some tokens banned already."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    batch, beams, length, vocabulary = (draw(st.integers(*ends)) for ends in ((1, 3), (1, 3), (1, 9), (5, 200)))
    scores = random.standard_normal((batch, beams, vocabulary)) * draw(st.sampled_from([0.1, 2.0, 30.0]))
    scores[random.random(scores.shape) < draw(st.sampled_from([0, 0.3]))] = -np.inf
    scores[:, :, 4] = 0.5  # one at least is left
    return random.integers(0, min(vocabulary, 6), (batch, beams, length)), scores.astype(np.float32)


PROCESSORS: dict[str, Callable[[int], Pair]] = {
    "repetition": lambda _: (processors.repetition_penalty(1.7), theirs.RepetitionPenaltyLogitsProcessor(1.7)),
    "reward": lambda _: (processors.repetition_penalty(0.6), theirs.RepetitionPenaltyLogitsProcessor(0.6)),
    **{
        f"{size}-grams": lambda _, size=size: (
            processors.no_repeat_ngram(size),
            theirs.NoRepeatNGramLogitsProcessor(size),
        )
        for size in (1, 2, 3)
    },
    "bias": lambda _: (
        processors.sequence_bias({(3,): -2.0, (1, 3): 5.0, (2, 0, 3): 1.0, (4, 2): -1.0}),
        theirs.SequenceBiasLogitsProcessor({(3,): -2.0, (1, 3): 5.0, (2, 0, 3): 1.0, (4, 2): -1.0}),
    ),
    "bad words": lambda _: (
        processors.bad_words([[3], [1], [2, 4], [0, 1, 2]], EOS),
        theirs.NoBadWordsLogitsProcessor([[3], [1], [2, 4], [0, 1, 2]], EOS),
    ),
    "decay": lambda length: (
        processors.exponential_decay(1, 1.3, EOS, max(length - 4, 1)),
        theirs.ExponentialDecayLengthPenalty((1, 1.3), EOS, max(length - 4, 1)),
    ),
    "invalid": lambda _: (processors.remove_invalid(), theirs.InfNanRemoveLogitsProcessor()),
    "renormalize": lambda _: (processors.renormalize(), theirs.LogitNormalization()),
    "temperature": lambda _: (warpers.temperature(0.7), theirs.TemperatureLogitsWarper(0.7)),
    "top_k": lambda _: (warpers.top_k(4, 2), theirs.TopKLogitsWarper(4, min_tokens_to_keep=2)),
    "top_p": lambda _: (warpers.top_p(0.8, 2), theirs.TopPLogitsWarper(0.8, min_tokens_to_keep=2)),
    "min_p": lambda _: (warpers.min_p(0.2, 2), theirs.MinPLogitsWarper(0.2, min_tokens_to_keep=2)),
    "typical_p": lambda _: (warpers.typical_p(0.7, 2), theirs.TypicalLogitsWarper(0.7, min_tokens_to_keep=2)),
    "epsilon": lambda _: (warpers.epsilon_cutoff(0.03, 2), theirs.EpsilonLogitsWarper(0.03, min_tokens_to_keep=2)),
    "eta": lambda _: (warpers.eta_cutoff(0.03, 2), theirs.EtaLogitsWarper(0.03, min_tokens_to_keep=2)),
    "top_h": lambda _: (warpers.top_h(0.6), theirs.TopHLogitsWarper(0.6)),
}


@pytest.mark.parametrize("name", PROCESSORS)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,  # one case in a thousand is decided by the rounding of a sum
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.filter_too_much],
)
@given(step=steps())
def test_equal_to_transformers(name: str, step: tuple[Sequences, Scores]) -> None:
    sequences, scores = step
    if name == "top_h":  # where one token has nearly all the probability, entropies are of the size of their rounding
        assume(bool((np.exp(log_softmax(scores)).max(axis=-1) < 0.99).all()))
    ours, reference = PROCESSORS[name](sequences.shape[-1])
    before = scores.copy()
    found = ours(sequences, scores)
    np.testing.assert_array_equal(scores, before)
    flat = torch.from_numpy(scores.reshape(-1, scores.shape[-1]).copy())
    expected = reference(torch.from_numpy(sequences.reshape(-1, sequences.shape[-1])), flat)
    np.testing.assert_allclose(found.reshape(expected.shape), expected.numpy(), rtol=1e-5, atol=1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p", "typical_p", "epsilon", "eta", "top_h"])
@settings(max_examples=30, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(step=steps())
def test_a_part_of_the_vocabulary_is_warped_as_the_whole(name: str, step: tuple[Sequences, Scores]) -> None:
    sequences, scores = step
    warper, _ = PROCESSORS[name](1)
    top = np.argsort(-scores, axis=-1, kind="stable")[..., :30]
    few = np.take_along_axis(scores, top, axis=-1)
    rest = np.full_like(scores, -np.inf)
    np.put_along_axis(rest, top, few, axis=-1)
    whole = np.take_along_axis(warper(sequences, rest), top, axis=-1)
    np.testing.assert_array_equal(np.isfinite(warper(sequences, few)), np.isfinite(whole))


def test_samples_are_distributed_as_softmax() -> None:
    scores = np.log(np.array([0.05, 0.2, 0.3, 0.0, 0.45], dtype=np.float32) + 1e-38)
    scores[3] = -np.inf
    draws = 40_000
    drawn = sample(np.broadcast_to(scores, (draws, 1, 5)), np.random.default_rng(0))
    counts, expected = np.bincount(drawn[:, 0], minlength=5), np.array([0.05, 0.2, 0.3, 0.0, 0.45]) * draws
    assert counts[3] == 0
    chi_square = ((counts - expected)[expected > 0] ** 2 / expected[expected > 0]).sum()
    assert chi_square < 11.34  # three degrees of freedom, 1 %


def test_draws_without_replacement_are_distributed_as_one_after_the_other() -> None:
    weights, draws = np.array([0.1, 0.2, 0.3, 0.4]), 40_000
    totals = np.broadcast_to(np.log(weights).astype(np.float32), (draws, 4))
    drawn = sample_without_replacement(totals, 2, np.random.default_rng(0))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    chi_square = 0.0
    for first in range(4):
        for second in set(range(4)) - {first}:
            expected = draws * weights[first] * weights[second] / (1 - weights[first])
            found = ((drawn[:, 0] == first) & (drawn[:, 1] == second)).sum()
            chi_square += (found - expected) ** 2 / expected
    assert chi_square < 24.72  # eleven degrees of freedom, 1 %


@pytest.mark.parametrize("scores", [[-np.inf, -np.inf], [np.nan, 0.0]])
def test_nothing_is_drawn_where_nothing_can_be(scores: list[float]) -> None:
    with pytest.raises(GenerationError, match="nothing can be drawn"):
        sample(np.array([[scores]], dtype=np.float32), np.random.default_rng(0))


SIGNS = {
    "positive": [0.5, 3.0, 9.0],
    "negative": [-0.5, -3.0, -9.0],
    "mixed": [-4.0, 0.0, 4.0],
    "zero": [0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("penalty", [0.5, 1.3, 4.0])
@pytest.mark.parametrize("scores", SIGNS.values(), ids=SIGNS)
@pytest.mark.parametrize("beams", [1, 4])
def test_a_word_that_was_said_gets_rarer_whatever_the_sign_of_its_score(
    beams: int, scores: list[float], penalty: float
) -> None:
    """A prompt is covered too: token 0 is in the prompt only, and is never generated."""
    sequences = np.tile(np.array([0, 2, 2]), (1, beams, 1))
    given = np.tile(np.array(scores, dtype=np.float32), (1, beams, 1))
    found = processors.repetition_penalty(penalty)(sequences, given)
    flat = torch.from_numpy(sequences[0]), torch.from_numpy(given[0].copy())
    np.testing.assert_array_equal(found[0], theirs.RepetitionPenaltyLogitsProcessor(penalty)(*flat).numpy())
    rarer = found[:, :, [0, 2]] <= given[:, :, [0, 2]]
    assert (rarer if penalty > 1 else found[:, :, [0, 2]] >= given[:, :, [0, 2]]).all()
    np.testing.assert_array_equal(found[:, :, 1], given[:, :, 1])
