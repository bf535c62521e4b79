"""Test that the best words of a step are those of a stable sort, however its rows are cut, with their log-softmax."""

from functools import cache

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from speech_export.tracing.best_words import best_words, parts_of
from speech_export.tracing.tracer import OPSETS

BEAMS, TOKENS = 3, 2
SIZES = [
    pytest.param(20, 20, id="all words"),
    pytest.param(90, 64, id="few words"),
    pytest.param(700, 64, id="more than the kernel puts in order"),
    pytest.param(20_011, 4, id="in parts, the last of them shorter"),
    pytest.param(16_384, 256, id="in parts, for 128 beams"),
]

Array = NDArray[np.float32]


class Step(nn.Module):
    """The end of a step."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return best_words(logits, self.count, BEAMS, TOKENS)


@cache
def session(words: int, count: int) -> onnxruntime.InferenceSession:
    program = torch.onnx.export(
        Step(count),
        (torch.randn(2, BEAMS * TOKENS, words),),
        dynamo=True,
        dynamic_shapes={"logits": {0: "batch"}},
        opset_version=OPSETS["cuda"],
        verbose=False,
    )
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)


def rows(words: int, seed: int, kind: str) -> Array:
    """Logits of one utterance: all different, few different ones, or most of them minus infinity."""
    random = np.random.default_rng(seed)
    shape = 1, BEAMS * TOKENS, words
    if kind == "equal":
        return random.integers(-3, 4, shape).astype(np.float32)
    logits = (random.standard_normal(shape) * 20).astype(np.float32)
    if kind == "infinite":
        logits[random.random(shape) < 0.999] = -np.inf
        logits[..., -1] = 1
    return logits


@pytest.mark.parametrize(("words", "count"), SIZES)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), kind=st.sampled_from(["different", "equal", "infinite"]))
def test_the_best_words_are_those_of_a_stable_sort(words: int, count: int, seed: int, kind: str) -> None:
    logits = rows(words, seed, kind)
    by_beam, logprobs, ids = session(words, count).run(None, {"logits": logits})
    given = logits.reshape(1, BEAMS, TOKENS, words)
    np.testing.assert_array_equal(by_beam, given)
    expected = np.argsort(-given, axis=-1, kind="stable")[..., :count]
    np.testing.assert_array_equal(ids, expected)
    exact = given.astype(np.float64)
    exact -= np.log(np.exp(exact - exact.max(-1, keepdims=True)).sum(-1, keepdims=True)) + exact.max(-1, keepdims=True)
    np.testing.assert_allclose(logprobs, np.take_along_axis(exact, expected, -1), rtol=1e-5, atol=1e-5)


def any_order(values: Tensor, count: int, largest: bool = True) -> tuple[Tensor, Tensor]:
    """TopK as on CUDA: of equal numbers in a long row it may take any, here those behind."""
    width = values.shape[-1]
    if width <= 256:
        order = torch.sort(values, descending=largest, stable=True).indices[..., :count]
    else:
        order = width - 1 - torch.sort(values.flip(-1), descending=largest, stable=True).indices[..., :count]
    return values.gather(-1, order), order


@pytest.mark.parametrize(("words", "count"), SIZES)
def test_equal_words_are_in_order_where_topk_has_none(words: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but those that are as good as the last one."""
    monkeypatch.setattr(torch, "topk", any_order)
    logits = torch.from_numpy(np.round(rows(words, 0, "different"), 0))
    _, _, ids = best_words(logits, count, BEAMS, TOKENS)
    expected = torch.sort(logits, descending=True, stable=True).indices[..., :count]
    found = ids.flatten(1, 2)
    kept = logits.gather(2, expected) > logits.gather(2, expected)[..., -1:]
    assert torch.equal(found[kept], expected[kept])
    assert torch.equal(logits.gather(2, found), logits.gather(2, expected))
    assert kept.any() or words == count


@pytest.mark.parametrize(
    ("words", "count", "parts"), [(90, 64, 1), (16_383, 4, 1), (250_054, 64, 62), (30_522, 64, 21)]
)
def test_both_sorts_are_about_equally_long(words: int, count: int, parts: int) -> None:
    assert parts_of(words, count) == parts
    assert parts == 1 or 0.8 < (words / parts) / (parts * count) < 1.3


@given(words=st.integers(2**14, 10**6), count=st.integers(2, 2**15))
def test_each_part_has_enough_words(words: int, count: int) -> None:
    parts = parts_of(words, min(count, words))
    assert words // parts >= min(count, words) or parts == 1
