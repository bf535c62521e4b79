"""Test warpers against transformers at many settings: ties, extreme scores, wide rows, parts of the vocabulary."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

from speech_runtime.generation.token_scores import warpers
from speech_runtime.generation.token_scores.maths import LogitsProcessor, Scores, softmax

NO_SEQUENCES = np.zeros((1, 1, 1), dtype=np.int64)
SHARES = (0.05, 0.3, 0.5, 0.8, 0.95)


class Warper(NamedTuple):
    ours: Callable[..., LogitsProcessor]
    theirs: Callable[..., Any]
    values: tuple[float, ...]


WARPERS = {
    "temperature": Warper(lambda t, _: warpers.temperature(t), lambda t, _: theirs.TemperatureLogitsWarper(t), SHARES),
    "top_k": Warper(
        warpers.top_k, lambda k, keep: theirs.TopKLogitsWarper(k, min_tokens_to_keep=keep), (1, 5, 50, 999)
    ),
    "top_p": Warper(warpers.top_p, lambda p, keep: theirs.TopPLogitsWarper(p, min_tokens_to_keep=keep), (0.0, *SHARES)),
    "min_p": Warper(warpers.min_p, lambda p, keep: theirs.MinPLogitsWarper(p, min_tokens_to_keep=keep), (0.0, *SHARES)),
    "typical_p": Warper(
        warpers.typical_p, lambda mass, keep: theirs.TypicalLogitsWarper(mass, min_tokens_to_keep=keep), SHARES
    ),
    "epsilon": Warper(
        warpers.epsilon_cutoff,
        lambda epsilon, keep: theirs.EpsilonLogitsWarper(epsilon, min_tokens_to_keep=keep),
        (3e-4, 0.02, 0.5),
    ),
    "eta": Warper(
        warpers.eta_cutoff,
        lambda epsilon, keep: theirs.EtaLogitsWarper(epsilon, min_tokens_to_keep=keep),
        (3e-4, 0.02, 0.5),
    ),
    "top_h": Warper(lambda h, _: warpers.top_h(h), lambda h, _: theirs.TopHLogitsWarper(h), (0.1, 0.4, 0.8)),
}
TRUNCATING = [name for name in WARPERS if name != "temperature"]


def rows(seed: int, shape: tuple[int, ...], spread: float, ties: bool, banned: float) -> Scores:
    """Scores of which one at least is finite in each row."""
    random = np.random.default_rng(seed)
    scores = random.standard_normal(shape) * spread
    if ties:
        scores = np.round(scores / spread * 2) / 2 * spread
    left = random.integers(0, shape[-1], shape[:-1])[..., None]
    gone = (random.random(shape) < banned) & (np.arange(shape[-1]) != left)
    return np.where(gone, -np.inf, scores).astype(np.float32)


@st.composite
def cases(draw: st.DrawFn) -> Scores:
    batch, beams, width = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(5, 300))
    return rows(
        draw(st.integers(0, 2**32 - 1)),
        (batch, beams, width),
        draw(st.sampled_from([0.01, 1.0, 5.0, 60.0, 1e4])),
        draw(st.booleans()),
        draw(st.sampled_from([0.0, 0.4, 1.0])),
    )


def expected(name: str, value: float, keep: int, scores: Scores) -> Scores | None:
    """Their scores; None where rounding decides which candidates are kept: theirs in float64 are others."""
    flat = torch.from_numpy(scores.reshape(-1, scores.shape[-1]))
    found = WARPERS[name].theirs(value, keep)(None, flat.clone())
    nudges = (1.0,) if isinstance(value, int) else (1 - 1e-5, 1 + 1e-5)
    for nudged in (value * nudge for nudge in nudges if value * nudge < 1):
        exact = WARPERS[name].theirs(nudged, keep)(None, flat.to(torch.float64))
        if name != "temperature" and not torch.equal(torch.sort(exact)[0], torch.sort(found.to(torch.float64))[0]):
            return None
    return found.numpy().reshape(scores.shape)


def assert_same_up_to_ties(name: str, found: Scores, reference: Scores, scores: Scores) -> None:
    """The same candidates are kept, or others of the very same scores."""
    kept = found > -np.inf
    np.testing.assert_array_equal(found[kept], scores[kept])
    if name == "min_p":  # theirs takes candidates whose probability is 0 in float32 for equal, ours the better ones
        found, reference = (np.where(left > -np.inf, softmax(scores), 0) for left in (found, reference))
    np.testing.assert_array_equal(np.sort(found, axis=-1), np.sort(reference, axis=-1))


@pytest.mark.parametrize("name", WARPERS)
@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.filter_too_much],
)
@given(scores=cases(), value=st.integers(0, 9), keep=st.sampled_from([1, 2, 3, 400]))
def test_equal_to_transformers(name: str, scores: Scores, value: int, keep: int) -> None:
    warper = WARPERS[name]
    setting = warper.values[value % len(warper.values)]
    reference = expected(name, setting, keep, scores)
    assume(reference is not None)
    before = scores.copy()
    found = warper.ours(setting, keep)(NO_SEQUENCES, scores)
    np.testing.assert_array_equal(scores, before)
    assert found.dtype == np.float32
    if name == "temperature":
        np.testing.assert_allclose(found, reference, rtol=1e-6)
    else:
        assert_same_up_to_ties(name, found, reference, scores)


@pytest.mark.parametrize(
    ("name", "spread"),
    [
        (name, spread)
        for name in TRUNCATING
        for spread in (0.1, 1.0, 8.0)
        if (name, spread) != ("typical_p", 0.1)  # there, distances are as close as their roundings
    ],
)
@pytest.mark.parametrize("ties", [False, True])
def test_wide_rows_are_equal_to_transformers(name: str, spread: float, ties: bool) -> None:
    scores = rows(5, (2, 2, 20_011), spread, ties, 0.1)
    for value in WARPERS[name].values:
        for keep in (1, 3):
            if (reference := expected(name, value, keep, scores)) is not None:
                assert_same_up_to_ties(name, WARPERS[name].ours(value, keep)(NO_SEQUENCES, scores), reference, scores)


@pytest.mark.parametrize("name", WARPERS)
@settings(max_examples=60, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(scores=cases(), value=st.integers(0, 9), keep=st.sampled_from([1, 3]), seed=st.integers(0, 2**32 - 1))
def test_a_part_of_the_vocabulary_is_warped_as_the_whole(
    name: str, scores: Scores, value: int, keep: int, seed: int
) -> None:
    random, warper = np.random.default_rng(seed), WARPERS[name]
    warp = warper.ours(warper.values[value % len(warper.values)], keep)
    vocabulary = 7000 if value == 0 else 2 * scores.shape[-1]
    ids = np.sort(
        random.permuted(np.broadcast_to(np.arange(vocabulary), (*scores.shape[:-1], vocabulary)), axis=-1)[
            ..., : scores.shape[-1]
        ]
    )  # ascending: of equal candidates, the first ones are kept
    whole = np.full((*scores.shape[:-1], vocabulary), -np.inf, dtype=np.float32)
    np.put_along_axis(whole, ids, scores, axis=-1)
    kept = np.take_along_axis(warp(NO_SEQUENCES, whole), ids, axis=-1)
    np.testing.assert_array_equal(warp(NO_SEQUENCES, scores), kept)

    order = random.permuted(np.broadcast_to(np.arange(scores.shape[-1]), scores.shape), axis=-1)
    shuffled = warp(NO_SEQUENCES, np.take_along_axis(scores, order, axis=-1))
    np.testing.assert_array_equal(np.sort(shuffled, axis=-1), np.sort(kept, axis=-1))


@pytest.mark.parametrize("width", [2, 3, 5, 7, 100, 300, 5000])
@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p", "typical_p", "epsilon", "eta"])
def test_where_all_are_equal_as_many_are_kept(name: str, width: int) -> None:
    scores = np.full((1, 1, width), 0.7, dtype=np.float32)
    for value in WARPERS[name].values:
        found = WARPERS[name].ours(value, 1)(NO_SEQUENCES, scores)
        reference = WARPERS[name].theirs(value, 1)(None, torch.from_numpy(scores[0].copy()))
        assert np.isfinite(found).sum() == reference.isfinite().sum()


def test_of_equal_candidates_the_first_are_kept() -> None:
    scores = np.array([[[1, 3, 3, 1, 3, 3]]], dtype=np.float32)
    kept = np.isfinite(warpers.top_p(0.4, 1)(NO_SEQUENCES, scores))
    np.testing.assert_array_equal(kept[0, 0], [False, True, True, False, False, False])
    kept = np.isfinite(warpers.min_p(1.0, 5)(NO_SEQUENCES, scores))
    np.testing.assert_array_equal(kept[0, 0], [True, True, True, False, True, True])


@pytest.mark.parametrize("name", TRUNCATING)
@pytest.mark.parametrize("width", [6, 6000])
@pytest.mark.filterwarnings("error")
def test_rows_without_a_finite_score_stay_as_they_are(name: str, width: int) -> None:
    scores = np.full((1, 3, width), -np.inf, dtype=np.float32)
    scores[0, 1, 4] = 2.0
    for value in WARPERS[name].values:
        np.testing.assert_array_equal(WARPERS[name].ours(value, 2)(NO_SEQUENCES, scores), scores)
