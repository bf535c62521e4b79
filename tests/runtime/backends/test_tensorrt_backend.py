"""Test the TensorRT backend on a GPU in memory: the tokens of ONNX Runtime, and every call as its contract demands."""

import gc
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import Pair
from fake_gpu import FakeDevice, FakeTensorRt
from handmade_bundle import add_engine_set, make_bundle
from speech_runtime import Bundle, EngineError, EngineOptions, OnnxSpeechSeq2Seq, ProfileLimits
from speech_runtime.backends import load as load_module
from speech_runtime.backends.options import options_for
from speech_runtime.backends.tensorrt.backend import TensorRtBackend
from speech_runtime.backends.tensorrt.engine_sets import choose_engines
from speech_runtime.backends.tensorrt.library import TensorRt
from speech_runtime.bench import measure
from speech_runtime.bench.options import BenchOptions, Case
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, ENCODER, cache_names
from speech_runtime.bundle.manifest import Manifest
from stub_cuda import StubRuntime

LIMITS = ProfileLimits(
    batch=(1, 1, 3), beams=(1, 3, 4), seconds=(0.1, 1.0, 3.0), tokens=(1, 8, 24), step_tokens=(1, 1, 2)
)
STEP, OTHERS = 0, 1
"""Profiles of the decoder."""


@dataclass
class Rig:
    """A model on a fake GPU, and access to its parts."""

    directory: Path
    model: OnnxSpeechSeq2Seq
    backend: TensorRtBackend
    device: FakeDevice
    tensorrt: FakeTensorRt


Load = Callable[..., Rig]


@pytest.fixture
def directory(digits_for_tensorrt: Path, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(digits_for_tensorrt, tmp_path / "bundle"))
    replace(Manifest.read(copy), engines=()).write(copy)
    return copy


@pytest.fixture
def load(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a bundle with engines, as `from_pretrained(device="engines")` does."""

    def make(**facts: Any) -> Rig:
        engines = add_engine_set(directory, **{"limits": LIMITS, **facts})
        bundle, device = Bundle.open(directory), FakeDevice()
        tensorrt, made = FakeTensorRt(bundle, engines, device), list[TensorRtBackend]()

        def backend(*arguments: Any, **settings: Any) -> TensorRtBackend:
            made.append(TensorRtBackend(*arguments, **settings, tensorrt=tensorrt.library, device=device))
            return made[-1]

        monkeypatch.setattr(load_module, "TensorRtBackend", backend)
        model = OnnxSpeechSeq2Seq.from_pretrained(directory, device="engines")
        return Rig(directory, model, made[-1], device, tensorrt)

    return make


def noise(seconds: float, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(int(seconds * 16000)).astype(np.float32)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 1},
        {"num_beams": 3, "num_return_sequences": 2},
        {"num_beams": 4, "repetition_penalty": 1.3},
        {"decoder_input_ids": [[5, 6, 7, 8, 9]], "num_beams": 2},
    ],
    ids=["greedy", "beams", "whole vocabulary", "prompt longer than a step"],
)
def test_search_does_not_know_the_difference(settings: dict[str, Any], digits: Pair, load: Load) -> None:
    rig = load()
    inputs, mask = rig.model.feature_extractor([noise(1.3)])
    found = rig.model.generate(inputs, mask, max_new_tokens=10, **settings)
    np.testing.assert_array_equal(found, digits.exported.generate(inputs, mask, max_new_tokens=10, **settings))


def test_batches_scores_and_samples_are_the_same_too(digits: Pair, load: Load) -> None:
    rig = load()
    clips = [noise(length, seed) for seed, length in enumerate((0.6, 1.9, 1.0))]
    found, expected = (
        [heard.text for heard in model.transcribe_iter(clips, batch_size=len(clips), num_beams=3, max_new_tokens=12)]
        for model in (rig.model, digits.exported)
    )
    assert found == expected
    texts = ["one two three", "nine"]
    scores = [model.score(clips[0], texts, sampling_rate=16000) for model in (rig.model, digits.exported)]
    np.testing.assert_allclose(*scores, atol=1e-4)
    samples = [
        model.generate(clips[0][None], do_sample=True, max_new_tokens=6, generator=np.random.default_rng(3))
        for model in (rig.model, digits.exported)
    ]
    np.testing.assert_array_equal(*samples)


def test_speech_bench_measures_them_to_their_end(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    rig, free = load(), iter((9000, 4000))

    class Gpu:
        free_memory = property(lambda _: next(free))

    monkeypatch.setattr(measure, "gpu_of", lambda device: Gpu())
    monkeypatch.setattr(measure, "import_libraries", lambda device: None)
    options = BenchOptions(repeats=2, least=2, threads=(0,), device="engines")
    found = measure.measure(rig.directory, Case(1.0, batch=2, beams=3, tokens=5), options)
    assert found.gpu_bytes == 5000
    assert found.encoder.p50 > 0.001  # the fake GPU runs when it is synchronised
    assert found.per_token.count == 2 * 4
    assert not rig.device.queue


def test_utterances_that_are_done_are_left_out(digits: Pair, load: Load, references: dict[Path, str]) -> None:
    rig = load()
    paths = sorted(references, key=lambda path: len(references[path]))
    clips = [rig.model.load(path)[: 3 * 16000] for path in (paths[0], paths[1], paths[-1])]
    found, expected = (
        [heard.text for heard in model.transcribe_iter(clips, batch_size=len(clips), num_beams=2, max_new_tokens=23)]
        for model in (rig.model, digits.exported)
    )
    assert found == expected


def test_the_first_step_has_an_empty_past_and_a_profile_of_its_own(load: Load) -> None:
    rig = load()
    rig.model.generate(noise(1)[None], num_beams=3, max_new_tokens=4)
    steps = [run for run in rig.tensorrt.runs if run[0] == DECODER_WITH_PAST]
    assert [profile for _, profile, _, _ in steps] == [OTHERS, *[STEP] * (len(steps) - 1)]
    _, _, shapes, addresses = steps[0]
    assert shapes["past.0.key"][3] == 0
    assert addresses["past.0.key"] in rig.device.blocks  # some releases refuse a null address


def test_caches_take_turns_in_two_sets_of_buffers(load: Load) -> None:
    rig = load()
    rig.model.generate(noise(1)[None], num_beams=3, min_new_tokens=8, max_new_tokens=8)
    steps = [addresses for name, _, _, addresses in rig.tensorrt.runs if name == DECODER_WITH_PAST]
    layers = rig.model.manifest.decoder.layers
    for past, present in zip(cache_names("past", layers), cache_names("present", layers), strict=True):
        assert [step[past] for step in steps[1:]] == [step[present] for step in steps[:-1]]
    sets = [{step[name] for name in cache_names("present", layers)} for step in steps]
    assert set.union(*sets[1:]) == set.union(*sets[1:3])
    assert len(set.union(*sets[1:])) == 4 * layers


def test_nothing_is_allocated_once_it_has_run(load: Load) -> None:
    rig = load()

    def one(seed: int, seconds: float) -> None:
        rig.model.generate(noise(seconds, seed)[None], num_beams=3, min_new_tokens=6, max_new_tokens=6)

    one(0, 2.9)  # sizes are rounded up to a power of two, so that this upload reuses memory
    before = len(rig.device.allocations)
    for seed in range(12):
        one(seed, 2.2 + seed / 20)
    assert len(rig.device.allocations) == before


def test_caches_are_as_large_as_the_profile_allows(load: Load) -> None:
    rig = load()
    facts = rig.model.manifest.decoder
    capacity = rig.backend._graphs[DECODER_WITH_PAST]._capacities["present.0.key"]
    longest = (LIMITS.tokens[2] - 1) + LIMITS.step_tokens[2]
    assert capacity == 4 * LIMITS.batch[2] * LIMITS.beams[2] * facts.heads * longest * facts.head_dim


def test_what_somebody_holds_is_not_overwritten(load: Load) -> None:
    rig = load()
    first = rig.model.encode(noise(1, 1)[None])
    before = rig.backend.download(first.hidden_states)
    for seed in range(3):
        rig.model.generate(noise(1, seed)[None], num_beams=2, max_new_tokens=3)
    np.testing.assert_array_equal(rig.backend.download(first.hidden_states), before)


def test_a_tensor_that_nobody_holds_gives_its_memory_back(load: Load) -> None:
    rig = load()
    tensor = rig.backend.upload(np.zeros((3, 5), dtype=np.float32))
    address = tensor.buffer.address
    del tensor
    assert rig.backend.upload(np.ones((2, 7), dtype=np.float32)).buffer.address == address


def test_memory_is_freed_with_the_backend(directory: Path) -> None:
    engines, device = add_engine_set(directory, limits=LIMITS), FakeDevice()
    bundle = Bundle.open(directory)
    tensorrt = FakeTensorRt(bundle, engines, device)
    backend = TensorRtBackend(bundle, EngineOptions(), tensorrt=tensorrt.library, device=device)
    tensor = backend.upload(np.zeros((1, 16000), dtype=np.float32))
    assert device.blocks
    assert device.queue  # the copy is pending, and only the pool keeps the array
    del backend, tensor
    gc.collect()
    assert not device.blocks


def test_only_tokens_and_candidates_cross_the_bus(load: Load) -> None:
    rig = load()
    encoded, facts = rig.model.encode(noise(1)[None]), rig.model.manifest.decoder
    rig.device.copied_in = rig.device.copied_out = 0
    rig.model.generate(encoder_outputs=encoded, num_beams=3, min_new_tokens=5, max_new_tokens=5)
    steps = sum(name == DECODER_WITH_PAST for name, *_ in rig.tensorrt.runs)
    token, candidate = 8 + 8, facts.top_k * (4 + 8)
    assert rig.device.copied_in == token + 3 * token * (steps - 1)
    assert rig.device.copied_out == candidate + 3 * candidate * (steps - 1)


def test_threads_take_turns(digits: Pair, load: Load) -> None:
    rig = load()
    expected = [digits.exported.generate(noise(1, seed)[None], num_beams=2, max_new_tokens=5) for seed in range(4)]
    found: dict[int, Any] = {}

    def work(seed: int) -> None:
        found[seed] = rig.model.generate(noise(1, seed)[None], num_beams=2, max_new_tokens=5)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, tokens in enumerate(expected):
        np.testing.assert_array_equal(found[seed], tokens)


@pytest.mark.parametrize(
    ("batch", "seconds", "settings", "message"),
    [
        (4, 1.0, {}, r"batch is 4, they take 1 to 3.*--engines --trt-batch 1 1 4 --trt-beams 1 3 4 --trt-seconds"),
        (1, 3.5, {}, r"samples is 56,000, they take 1,600 to 48,000\. .*--trt-seconds 0.1 1 4"),
        (1, 0.098, {}, r"samples is 1,568, they take 1,600 to 48,000\. .*--trt-seconds 0.098 1 3"),
        (1, 1.0, {"num_beams": 5}, r"beams is 5, they take 1 to 4; past_beams|beams is 5.*--trt-beams 1 3 5"),
        (1, 1.0, {"min_new_tokens": 30, "max_new_tokens": 30}, r"past is 24, they take 0 to 23.*--trt-tokens 1 8 25"),
    ],
    ids=["batch", "long", "short", "beams", "tokens"],
)
def test_a_call_that_fits_no_profile_names_the_limit_and_the_command(
    batch: int, seconds: float, settings: dict[str, Any], message: str, load: Load
) -> None:
    rig = load()
    with pytest.raises(EngineError, match=message):
        rig.model.generate(np.repeat(noise(seconds)[None], batch, axis=0), **settings)


def test_weights_that_were_left_out_are_taken_from_the_graphs(digits: Pair, load: Load) -> None:
    rig = load(weights="stripped")
    assert [path.name for path in rig.tensorrt.refitted] == [
        f"{name}.onnx" for name in ("encoder", "decoder_init", "decoder_with_past")
    ]
    found = rig.model.generate(noise(1)[None], max_new_tokens=3)
    np.testing.assert_array_equal(found, digits.exported.generate(noise(1)[None], max_new_tokens=3))


@pytest.mark.parametrize(
    ("refuses", "weights", "message"),
    [
        ("engine", "included", "encoder.engine cannot be loaded: the plan is of another release"),
        ("weights", "stripped", "encoder: TensorRT refuses the weights of .*encoder.onnx"),
    ],
)
def test_what_tensorrt_refuses_is_said_in_its_words(refuses: str, weights: str, message: str, directory: Path) -> None:
    engines = add_engine_set(directory, limits=LIMITS, weights=weights)
    bundle, device = Bundle.open(directory), FakeDevice()
    tensorrt = FakeTensorRt(bundle, engines, device)
    tensorrt.refuses = refuses
    with pytest.raises(EngineError, match=message):
        TensorRtBackend(bundle, EngineOptions(), tensorrt=tensorrt.library, device=device)


def test_another_dtype_is_refused(load: Load) -> None:
    rig = load()
    values = rig.backend.upload(np.zeros((1, 16000), dtype=np.float64))
    mask = rig.backend.upload(np.ones((1, 16000), dtype=np.int64))
    with pytest.raises(EngineError, match="input_values of encoder is float64, its engine takes float32"):
        rig.backend.run(ENCODER, {"input_values": values, "attention_mask": mask}, [])


def test_the_driver_in_memory_notices_what_is_wrong() -> None:
    device = FakeDevice()
    address = device.allocate(8)
    device.copy_in(address, np.zeros(2, dtype=np.float32))  # nothing keeps the array
    with pytest.raises(AssertionError, match="was collected before it was copied"):
        device.synchronize()
    with pytest.raises(AssertionError):
        device.copy_in(address, np.zeros(3, dtype=np.float32))
    device.copy_in(address, held := np.ones(2, dtype=np.float32))
    with pytest.raises(AssertionError, match="while work is on the stream"):
        device.free(address)
    device.synchronize()
    np.testing.assert_array_equal(device.read(address, (2,), held.dtype), held)


RTX = TensorRt("tensorrt_rtx", FakeTensorRt)


@pytest.mark.parametrize(
    ("facts", "capability", "message"),
    [
        ({"flavor": "tensorrt", "version": "10.13"}, "8.9", "built by TensorRT, and TensorRT-RTX is installed"),
        ({"version": "1.6.0"}, "8.9", "built by TensorRT-RTX 1.6.0, and 1.7.1 is installed, which reads only its own"),
        ({"compute_capabilities": ("8.6", "8.9")}, "12.0", "for compute capability 8.6, 8.9, and this GPU has 12.0"),
        ({}, "7.5", r"capability 8.0, 8.6, 8.9, .* later, and this GPU has 7.5; give --trt-compute-capability 7.5"),
        ({"graphs": {"encoder.onnx": "0"}}, "8.9", "they are stale, decoder_init.onnx, .*encoder.onnx changed since"),
    ],
)
def test_stale_and_foreign_engines_are_refused_with_the_reason(
    facts: dict[str, Any], capability: str, message: str, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    add_engine_set(bundle, **facts)
    with pytest.raises(EngineError, match=rf"tensorrt_rtx-0: .*{message}.*; build them here: speech-export .* --eng"):
        choose_engines(Bundle.open(bundle), RTX, capability)


@pytest.mark.parametrize("capability", ["9.0", "10.0", "10.3", "11.0", "7.0", "8.7"])
def test_a_gpu_that_tensorrt_rtx_does_not_support_is_named_before_anything_is_loaded(
    capability: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "bundle", target="tensorrt")
    for path in add_engine_set(bundle).paths:
        (bundle / path).unlink()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", StubRuntime(capability))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", SimpleNamespace(__version__="1.7.1"))
    refusal = rf"TensorRT-RTX does not support GPUs of compute capability {capability}, only those of 8.0, 8.6, 8.9, 12"
    remedy = (
        r"give device='cuda'.*'speech-export\[tensorrt\]', then speech-export .*bundle --engines --trt-flavor tenso"
    )
    with pytest.raises(EngineError, match=f"{refusal}.*{remedy}"):
        OnnxSpeechSeq2Seq.from_pretrained(bundle, device="engines")


@pytest.mark.parametrize("capability", ["8.0", "8.6", "8.9", "12.0", "12.1", "13.0"])
def test_other_gpus_get_engines_that_were_built_for_none_in_particular(capability: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    built = add_engine_set(bundle)
    assert choose_engines(Bundle.open(bundle), RTX, capability) == built


@pytest.mark.parametrize(
    ("flavor", "capability"), [("tensorrt", "9.0"), ("tensorrt_rtx", "7.5"), ("tensorrt_rtx", "10.0")]
)
def test_engines_that_were_built_for_a_gpu_are_taken_there(flavor: Any, capability: str, tmp_path: Path) -> None:
    """A later TensorRT-RTX may know GPUs that this release does not."""
    bundle = make_bundle(tmp_path / "bundle")
    built = add_engine_set(bundle, flavor=flavor, compute_capabilities=(capability,))
    assert choose_engines(Bundle.open(bundle), TensorRt(flavor, FakeTensorRt), capability) == built


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "encoder.engine is missing"), (b"", "has 0 bytes instead of"), (b"tensorrt_rtx-1 encoder", "was changed")],
)
def test_damaged_engines_are_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle / add_engine_set(bundle).paths[-1]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=message):
        choose_engines(Bundle.open(bundle), RTX, "8.9")


def test_the_engines_that_fit_are_chosen(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    with pytest.raises(EngineError, match="has no engines; build them here: speech-export"):
        choose_engines(Bundle.open(bundle), RTX, "8.9")
    add_engine_set(bundle, directory="tensorrt-0", flavor="tensorrt", version="10.13", compute_capabilities=("8.9",))
    fitting = add_engine_set(bundle, compute_capabilities=("8.9",), directory="rtx-8.9")
    assert choose_engines(Bundle.open(bundle), RTX, "8.9") == fitting
    with pytest.raises(EngineError, match=r"engines/tensorrt-0: .*TensorRT, and .*\. engines/rtx-8.9: .*has 8.6"):
        choose_engines(Bundle.open(bundle), RTX, "8.6")
    assert Manifest.read(bundle).engines[1] == fitting


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_id": -1}, "device_id is -1; give 0"),
        ({"flavor": "rt"}, "flavor is 'rt'; give 'tensorrt' or 'tensorrt_rtx'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        EngineOptions(**options)


def test_engines_are_a_device() -> None:
    assert options_for("engines") == EngineOptions()
    assert options_for("engines:2") == EngineOptions(device_id=2)
