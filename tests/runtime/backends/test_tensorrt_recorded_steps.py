"""Test TensorRT engines of a decoder with a static cache, with recorded steps, on a GPU in memory."""

import gc
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from composites import composite
from conftest import ONE_THREAD, ExportOnce
from fake_gpu import FakeDevice, FakeTensorRt
from handmade_bundle import DECODER, add_engine_set, make_bundle
from speech_export.precision.options import PrecisionOptions
from speech_export.tensorrt.add_engines import _with_cache_length
from speech_runtime import Bundle, EngineError, EngineOptions, OnnxSpeechSeq2Seq, ProfileLimits
from speech_runtime.backends.tensorrt.backend import TensorRtBackend
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, cache_names
from speech_runtime.bundle.manifest import EngineSet, Manifest

LIMITS = ProfileLimits(batch=(1, 1, 3), beams=(1, 3, 4), seconds=(0.004, 0.03, 0.2), tokens=(1, 8, 24))


class Rig:
    """A model with engines on the fake GPU, and the same model on the CPU."""

    def __init__(self, bundle: Bundle, engines: EngineSet, cuda_graphs: int) -> None:
        self.device = FakeDevice()
        self.tensorrt = FakeTensorRt(bundle, engines, self.device)
        options = EngineOptions(cuda_graphs=cuda_graphs)
        self.backend = TensorRtBackend(bundle, options, tensorrt=self.tensorrt.library, device=self.device)
        self.plain = OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=ONE_THREAD)
        parts = (self.plain.manifest, self.plain.generation_config, None, None)
        self.model = OnnxSpeechSeq2Seq(self.backend, *parts)

    def both(self, inputs: NDArray[np.float32], **settings: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.model.generate(inputs, **settings), self.plain.generate(inputs, **settings)

    @property
    def steps(self) -> list[dict[str, int]]:
        """Addresses of each run on the stream, replays excluded."""
        return [addresses for name, _, _, addresses in self.tensorrt.runs if name == DECODER_WITH_PAST]


@pytest.fixture
def load(export_once: ExportOnce, tmp_path: Path) -> Callable[..., Rig]:
    settings: dict[str, Any] = {"precision": PrecisionOptions(target="tensorrt"), "static_cache": 40}
    exported = export_once("bert-static", composite("bert"), **settings)

    def make(cuda_graphs: int, **facts: Any) -> Rig:
        directory = Path(shutil.copytree(exported, tmp_path / "bundle"))
        replace(Manifest.read(directory), engines=()).write(directory)
        engines = add_engine_set(directory, limits=LIMITS, **facts)
        return Rig(Bundle.open(directory), engines, cuda_graphs)

    return make


def clips(batch: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((batch, 500)).astype(np.float32)


@pytest.mark.parametrize(
    ("cuda_graphs", "flavor"), [(0, "tensorrt"), (2, "tensorrt"), (2, "tensorrt_rtx")], ids=["none", "off", "by itself"]
)
@pytest.mark.parametrize("settings", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 3, "repetition_penalty": 1.3}])
def test_engines_find_what_the_cpu_finds(
    cuda_graphs: int, flavor: str, settings: dict[str, Any], load: Callable[..., Rig]
) -> None:
    rig = load(cuda_graphs, flavor=flavor)
    for seed in range(2):
        found, expected = rig.both(clips(2, seed), max_new_tokens=20, **settings)
        np.testing.assert_array_equal(found, expected)
    assert bool(rig.device.replays) == (cuda_graphs > 0 and flavor == "tensorrt")


def test_tensorrt_is_recorded_once_for_each_turn(load: Callable[..., Rig]) -> None:
    rig = load(1, flavor="tensorrt")
    for seed in range(3):
        rig.model.generate(clips(1, seed), num_beams=3, min_new_tokens=12, max_new_tokens=12)
    assert len(rig.device.recordings) == 4  # the step with one beam, the next with all beams, and two caches in turn
    assert len(rig.steps) == 2 * 4  # each step also runs once unrecorded, since recording does not execute it
    assert rig.device.replays == 3 * 12 - 4


def test_memory_that_a_recording_writes_is_never_lent_out(load: Callable[..., Rig]) -> None:
    rig = load(1, flavor="tensorrt")
    rig.model.generate(clips(1), num_beams=3, max_new_tokens=8)
    free = {address for addresses in rig.backend._pool._free.values() for address in addresses}
    assert not free & {address for step in rig.steps for address in step.values()}
    found, expected = rig.both(clips(3), num_beams=3, max_new_tokens=8)  # more sizes than are recorded
    np.testing.assert_array_equal(found, expected)


def test_tensorrt_rtx_records_the_step_by_itself_at_addresses_that_stay(load: Callable[..., Rig]) -> None:
    rig = load(1)
    assert rig.tensorrt.graph_strategies == {DECODER_WITH_PAST: "whole graph"}
    for seed in range(2):
        rig.model.generate(clips(1, seed), num_beams=3, min_new_tokens=12, max_new_tokens=12)
    first, second = rig.steps[:12], rig.steps[12:]
    assert [{name: step[name] for name in step if name != "logits"} for step in first] == [
        {name: step[name] for name in step if name != "logits"} for step in second
    ]


def test_caches_take_turns(load: Callable[..., Rig]) -> None:
    rig = load(0)
    rig.model.generate(clips(1), num_beams=3, min_new_tokens=9, max_new_tokens=9)
    layers = rig.model.manifest.decoder.layers
    for past, present in zip(cache_names("past", layers), cache_names("present", layers), strict=True):
        assert [step[past] for step in rig.steps[1:]] == [step[present] for step in rig.steps[:-1]]
        assert len({step[present] for step in rig.steps[1:]}) == 2


def test_recordings_are_given_up_with_the_engine(load: Callable[..., Rig]) -> None:
    rig = load(1, flavor="tensorrt")
    rig.model.generate(clips(1), num_beams=2, max_new_tokens=5)
    device = rig.device
    assert device.recordings
    del rig
    gc.collect()
    assert not device.recordings
    assert not device.blocks


def test_engines_whose_shapes_change_cannot_be_recorded(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "bundle", target="tensorrt")
    engines, device = add_engine_set(path, limits=LIMITS), FakeDevice()
    bundle = Bundle.open(path)
    library = FakeTensorRt(bundle, engines, device).library
    with pytest.raises(EngineError, match="cuda_graphs is 1, and the cache of .* grows .* with --static-cache TOKENS"):
        TensorRtBackend(bundle, EngineOptions(cuda_graphs=1), tensorrt=library, device=device)


def test_what_is_no_number_of_sizes_is_refused() -> None:
    with pytest.raises(EngineError, match="engine options: cuda_graphs is -1; give a number of sizes, or 0 for no"):
        EngineOptions(cuda_graphs=-1)


def test_engines_are_entered_with_the_tokens_that_the_cache_has_room_for() -> None:
    assert _with_cache_length(LIMITS, replace(DECODER, cache="static", cache_length=5)).tokens == (1, 5, 5)
    assert _with_cache_length(LIMITS, replace(DECODER, cache="static", cache_length=400)).tokens == (1, 8, 400)
    assert _with_cache_length(LIMITS, DECODER) == LIMITS
