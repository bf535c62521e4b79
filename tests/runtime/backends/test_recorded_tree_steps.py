"""Test recorded steps with a cache that beams share, on the GPU in memory that replays blindly."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from composites import composite
from conftest import ONE_THREAD, ExportOnce
from recorded_gpu import NOT_RECORDED, OnDevice
from speech_export.precision.options import PrecisionOptions
from speech_runtime import GenerationError, OnnxSpeechSeq2Seq
from speech_runtime.bundle.loading import Bundle
from speech_runtime.generation.decoding.caches import tree
from speech_runtime.generation.decoding.caches.tree import TreeBuffers


@pytest.fixture(scope="module")
def bundle(export_once: ExportOnce) -> Bundle:
    return Bundle.open(export_once("bert-tree", composite("bert"), precision=PrecisionOptions(target="cuda")))


@pytest.fixture
def plain(bundle: Bundle) -> OnnxSpeechSeq2Seq:
    return OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=ONE_THREAD)


Load = Callable[..., tuple[OnnxSpeechSeq2Seq, OnDevice]]


@pytest.fixture
def load(bundle: Bundle, plain: OnnxSpeechSeq2Seq) -> Load:
    def on_device(**bounds: Any) -> tuple[OnnxSpeechSeq2Seq, OnDevice]:
        backend = OnDevice(bundle, **bounds)
        parts = (plain.manifest, plain.generation_config, plain.feature_extractor, plain.tokenizer)
        return OnnxSpeechSeq2Seq(backend, *parts), backend

    return on_device


def clips(batch: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((batch, 500)).astype(np.float32)


def assert_same(model: OnnxSpeechSeq2Seq, plain: OnnxSpeechSeq2Seq, batch: int, **settings: Any) -> None:
    for seed in range(3):
        found, expected = (
            each.generate(clips(batch, seed), return_dict_in_generate=True, **settings) for each in (model, plain)
        )
        np.testing.assert_array_equal(found.sequences, expected.sequences)
        np.testing.assert_allclose(found.sequences_scores, expected.sequences_scores, atol=1e-5)


@pytest.mark.parametrize("room", [2, 128])
@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 1},
        {"num_beams": 4, "num_return_sequences": 2},
        {"num_beams": 3, "repetition_penalty": 1.3},
        {"num_beams": 2, "decoder_input_ids": [[5, 6, 7], [8, 9, 10]]},
        {"num_beams": 3, "output_logits": True},
    ],
    ids=["greedy", "beams", "whole vocabulary", "prompt", "logits"],
)
def test_replayed_searches_find_the_same(
    load: Load, plain: OnnxSpeechSeq2Seq, settings: dict[str, Any], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "ROOM", room)
    model, backend = load()
    assert_same(model, plain, 2, max_new_tokens=24, **settings)
    unrecorded = backend.session.numbers.count(NOT_RECORDED)
    assert unrecorded == (3 if "decoder_input_ids" in settings else 0)  # prompts


def test_the_logits_of_each_step_are_kept(load: Load, plain: OnnxSpeechSeq2Seq) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 8, "output_logits": True, "return_dict_in_generate": True}
    found, expected = (model.generate(clips(1), **settings).logits for model in (load()[0], plain))
    np.testing.assert_allclose(np.stack(found), np.stack(expected), atol=1e-5)
    assert not np.allclose(found[1], found[2])


def test_a_step_needs_one_recording_for_each_number_of_slots(load: Load) -> None:
    model, backend = load()
    for seed in range(3):
        model.generate(clips(1, seed), num_beams=4, min_new_tokens=40, max_new_tokens=40)
    first, *others = np.array_split(backend.session.numbers, 3)
    assert [list(each) for each in others] == [list(first)] * 2
    assert [int(number) for number in first] == [1, *[2] * 39]  # the first token has one beam


def test_longer_searches_go_on_in_a_larger_cache(
    load: Load, plain: OnnxSpeechSeq2Seq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "ROOM", 8)
    model, backend = load()
    assert_same(model, plain, 1, num_beams=4, min_new_tokens=40, max_new_tokens=40)
    assert NOT_RECORDED not in backend.session.numbers
    assert len(backend.session.recorded) == 4  # one beam; four with 8, 16 and 32 tokens each


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_without_memory_for_a_larger_cache_steps_are_not_recorded(
    load: Load, plain: OnnxSpeechSeq2Seq, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "ROOM", 8)
    taken: list[int] = []
    reserve = TreeBuffers.reserve_slots

    def noted(buffers: TreeBuffers, slots: int) -> bool:
        taken.append(slots)
        return (not buffers.fixed or slots <= 40 * share) and reserve(buffers, slots)

    monkeypatch.setattr(TreeBuffers, "reserve_slots", noted)
    model, backend = load()
    assert_same(model, plain, 1, num_beams=2, min_new_tokens=30, max_new_tokens=30)
    assert max(taken) > 40 * share
    assert (len(backend.session.recorded) > 0) == (share > 0)
    assert NOT_RECORDED in backend.session.numbers


class Overflowing(OnDevice):
    """The keys and values of a search overflow as long as `broken` is true."""

    broken = False

    def download(self, value: Any) -> NDArray[Any]:
        found = super().download(value)
        return np.full_like(found, np.nan) if self.broken and found.dtype == np.float32 and found.ndim == 4 else found


def test_a_search_that_overflowed_does_not_spoil_the_next_one(
    bundle: Bundle, plain: OnnxSpeechSeq2Seq, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Overflowing(bundle)
    parts = (plain.manifest, plain.generation_config, plain.feature_extractor, plain.tokenizer)
    model = OnnxSpeechSeq2Seq(backend, *parts)
    assert_same(model, plain, 1, num_beams=2, max_new_tokens=12)
    gc.collect()
    (lent,) = [each for each in gc.get_objects() if type(each) is TreeBuffers and each.fixed]
    (slots,) = lent._caches
    backend.broken = True
    with pytest.raises(GenerationError, match="the scores of step 1 are not finite"):
        model.generate(clips(1), num_beams=2, max_new_tokens=12)
    backend.broken = False
    assert not lent.finite
    for tensor in lent.cache(slots):  # what the graph would have written
        backend.write(tensor, np.full(tensor.shape(), np.nan, dtype=np.float32))
    gc.collect()
    assert_same(model, plain, 1, num_beams=2, max_new_tokens=12)
    assert lent.finite


def test_an_interrupted_search_is_not_trusted(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model, backend = load()
    model.generate(clips(1), num_beams=2, max_new_tokens=5)
    gc.collect()
    (lent,) = [each for each in gc.get_objects() if type(each) is TreeBuffers and each.fixed]
    assert lent.finite

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(backend.session, "run_with_iobinding", interrupted)
        model.generate(clips(1), num_beams=2, max_new_tokens=5)
    assert not lent.finite
