"""Test the options that are passed to the providers for NVIDIA GPUs; no GPU is needed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Pair
from handmade_bundle import DECODER, make_bundle
from speech_runtime import (
    Bundle,
    CudaOptions,
    EngineError,
    OnnxSpeechSeq2Seq,
    ProfileLimits,
    SessionOptions,
    TensorRtOptions,
)
from speech_runtime.backends.onnxruntime.graph_providers import engine_cache, graph_providers
from speech_runtime.backends.options import CUDA, TENSORRT, TENSORRT_RTX, options_for
from speech_runtime.backends.tensorrt.profiles import graph_profiles
from speech_runtime.bundle.graph_io import DECODER_INIT, DECODER_WITH_PAST, ENCODER, GRAPHS, graph_inputs

WIDTH = 32
LIMITS = ProfileLimits(batch=(1, 2, 4), beams=(1, 3, 5), seconds=(0.05, 1.0, 2.0), tokens=(1, 10, 20))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(make_bundle(tmp_path / "bundle", target="tensorrt"))


def settings(options: SessionOptions, bundle: Bundle, graph: str = DECODER_WITH_PAST) -> dict[str, dict[str, str]]:
    return dict(graph_providers(options, bundle, graph, WIDTH, "1.32"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"convolution_search": "FAST"},
            "is 'FAST'; give one of 'HEURISTIC', 'EXHAUSTIVE', 'DEFAULT'",
        ),
        ({"arena_growth": "slow"}, "arena_growth is 'slow'; give 'kNextPowerOfTwo' or 'kSameAsRequested'"),
        ({"tf32": 1, "prefer_nhwc": None}, "tf32 is 1; give True or False; prefer_nhwc is None"),
        ({"memory_limit": 0}, "memory_limit is 0; give a number of bytes above 0, or None"),
        ({"sdpa_kernel": 1024}, r"sdpa_kernel is 1024; give 0 \(ONNX Runtime's own choice\) to 1,023"),
    ],
)
def test_cuda_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        CudaOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": (1, 2, 3)}, r"limits is \(1, 2, 3\); give ProfileLimits"),
        ({"engine_cache": ""}, "engine_cache is ''; give a directory, or None"),
        ({"zero_past": 0, "shared_memory": 1}, "zero_past is 0; give True or False; shared_memory is 1"),
    ],
)
def test_tensorrt_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        TensorRtOptions(**options)


def test_cuda_is_exact_and_does_not_tune_convolutions_for_every_length(bundle: Bundle) -> None:
    found = settings(SessionOptions(device="cuda", device_id=1), bundle)[CUDA]
    assert (found["device_id"], found["use_tf32"], found["cudnn_conv_algo_search"]) == ("1", "0", "HEURISTIC")


def test_every_option_of_cuda_reaches_the_provider(bundle: Bundle) -> None:
    cuda = CudaOptions(*("EXHAUSTIVE", True, True, "kSameAsRequested"), memory_limit=2**30, sdpa_kernel=2)
    assert settings(SessionOptions(device="cuda", cuda=cuda), bundle)[CUDA] == {
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "use_tf32": "1",
        "prefer_nhwc": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "do_copy_in_default_stream": "1",
        "sdpa_kernel": "2",
        "gpu_mem_limit": str(2**30),
    }
    assert (
        settings(SessionOptions(device="tensorrt", cuda=cuda), bundle)[CUDA]["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    )


@pytest.mark.parametrize(
    ("device", "name", "prefix"), [("tensorrt", TENSORRT, "trt"), ("tensorrt_rtx", TENSORRT_RTX, "nv")]
)
def test_tensorrt_gets_the_shapes_of_every_input(device: Any, name: str, prefix: str, bundle: Bundle) -> None:
    options = SessionOptions(device=device, tensorrt=TensorRtOptions(limits=LIMITS))
    for graph in GRAPHS:
        found = settings(options, bundle, graph)[name]
        for end in ("min", "opt", "max"):
            shapes = dict(part.split(":") for part in found[f"{prefix}_profile_{end}_shapes"].split(","))
            assert list(shapes) == graph_inputs(graph, "input_values", DECODER.layers)
            assert all(size.isdecimal() for shape in shapes.values() for size in shape.split("x"))


def test_the_shapes_are_those_of_the_limits(bundle: Bundle) -> None:
    options = SessionOptions(device="tensorrt", tensorrt=TensorRtOptions(limits=LIMITS))
    encoder = settings(options, bundle, ENCODER)[TENSORRT]
    assert encoder["trt_profile_min_shapes"] == "input_values:1x800,attention_mask:1x800"
    assert encoder["trt_profile_max_shapes"] == "input_values:4x32000,attention_mask:4x32000"
    assert settings(options, bundle, DECODER_INIT)[TENSORRT]["trt_profile_opt_shapes"] == (
        f"encoder_hidden_states:2x{16000 // 320 + 1}x{WIDTH}"
    )
    step = settings(options, bundle)[TENSORRT]
    heads, width = DECODER.heads, DECODER.head_dim
    assert step["trt_profile_min_shapes"].startswith("input_ids:1x1x1,beam_idx:1x1,encoder_attention_mask:1x1,")
    assert f"past.0.key:1x1x{heads}x0x{width}" in step["trt_profile_min_shapes"]  # the first step has an empty past
    assert f"past.0.value:2x3x{heads}x10x{width}" in step["trt_profile_opt_shapes"]
    assert f"past.0.value:4x5x{heads}x19x{width}" in step["trt_profile_max_shapes"]


def test_each_model_and_each_limits_have_an_engine_cache_of_their_own(bundle: Bundle, tmp_path: Path) -> None:
    options = TensorRtOptions(engine_cache=tmp_path / "cache")
    cache = engine_cache(options, bundle, "1.32")
    found = settings(SessionOptions(device="tensorrt", tensorrt=options), bundle)[TENSORRT]
    assert {name: found[name] for name in found if "cache" in name} == {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_engine_cache_prefix": DECODER_WITH_PAST,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
    }
    rtx = settings(SessionOptions(device="tensorrt_rtx", tensorrt=options), bundle)[TENSORRT_RTX]
    assert rtx["nv_runtime_cache_path"] == str(cache)
    other = Bundle.open(make_bundle(tmp_path / "other", decoder=DECODER, external_data=True))
    others = {
        engine_cache(options, other, "1.32"),
        engine_cache(options, bundle, "1.33"),
        engine_cache(TensorRtOptions(engine_cache=tmp_path / "cache", limits=LIMITS), bundle, "1.32"),
    }
    assert len({cache, *others}) == 4
    assert engine_cache(TensorRtOptions(), bundle, "1.32") is None
    assert not any("cache" in name for name in settings(SessionOptions(device="tensorrt"), bundle)[TENSORRT])


def test_memory_sharing_is_an_option(bundle: Bundle) -> None:
    shared = settings(SessionOptions(device="tensorrt"), bundle)[TENSORRT]
    alone = settings(SessionOptions(device="tensorrt", tensorrt=TensorRtOptions(shared_memory=False)), bundle)[TENSORRT]
    found = [found["trt_context_memory_sharing_enable"] for found in (shared, alone)]
    assert found == ["1", "0"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_nothing_lets_tensorrt_compute_in_half_what_the_graph_does_not(precision: str, bundle: Bundle) -> None:
    """ONNX Runtime makes a strongly typed network unless a precision is enabled."""
    of_precision = Bundle(bundle.directory, OfPrecision(bundle.manifest, precision))
    found = settings(SessionOptions(device="tensorrt"), of_precision)[TENSORRT]
    assert not [name for name in found if name.endswith(("fp16_enable", "bf16_enable", "int8_enable"))]


class OfPrecision:
    """A manifest with another precision."""

    def __init__(self, manifest: Any, precision: str) -> None:
        self._manifest = manifest
        self.precision = precision

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manifest, name)


def test_a_tensorrt_that_takes_no_empty_past_leaves_the_decoder_to_cuda(bundle: Bundle) -> None:
    options = SessionOptions(device="tensorrt", tensorrt=TensorRtOptions(zero_past=False))
    found = [list(settings(options, bundle, graph)) for graph in GRAPHS]
    assert found == [[TENSORRT, CUDA], [TENSORRT, CUDA], [CUDA]]


def test_providers_that_are_spelled_out_stay_as_they_are(bundle: Bundle) -> None:
    options = SessionOptions(device="tensorrt", providers=((TENSORRT, {"trt_sparsity_enable": True}), (CUDA, {})))
    assert settings(options, bundle) == {
        TENSORRT: {"trt_sparsity_enable": "True"},
        CUDA: {},
    }


@pytest.mark.parametrize("device", ["cuda", "tensorrt", "tensorrt_rtx"])
def test_only_another_gpu_than_the_first_is_numbered(device: Any, bundle: Bundle) -> None:
    """With a number, ONNX Runtime 1.26 and later warn at each load that there is no plugin for the provider."""
    for number, expected in ((0, None), (1, "1")):
        options = SessionOptions(device=device, device_id=number)
        for graph in GRAPHS:
            found = settings(options, bundle, graph).values()
            assert [each.get("device_id") for each in found] == [expected] * len(found)


def test_attention_is_computed_by_kernels_that_plan_nothing_for_each_length(bundle: Bundle) -> None:
    """Flash (1) and memory-efficient (2), without cuDNN (8)."""
    for graph in GRAPHS:
        assert settings(SessionOptions(device="cuda"), bundle, graph)[CUDA]["sdpa_kernel"] == "3"


@pytest.mark.parametrize(
    ("device", "options"),
    [
        (None, SessionOptions()),
        ("cpu", SessionOptions()),
        ("cuda", SessionOptions(device="cuda")),
        ("cuda:1", SessionOptions(device="cuda", device_id=1)),
        ("tensorrt:2", SessionOptions(device="tensorrt", device_id=2)),
        ("tensorrt_rtx", SessionOptions(device="tensorrt_rtx")),
    ],
)
def test_a_device_is_shorthand_for_options(device: str | None, options: SessionOptions) -> None:
    assert options_for(device) == options


@pytest.mark.parametrize(
    ("device", "meant"), [(-1, "cpu"), (0, "cuda"), (2, "cuda:2"), (torch.device("cpu"), "cpu"), (None, None)]
)
def test_devices_of_transformers_and_torch_are_taken(device: Any, meant: str | None) -> None:
    assert options_for(device) == options_for(meant)


@pytest.mark.parametrize("device", [0.5, True, "gpu", "cuda:", "cuda:one", "cuda:-1", "", "cuda 1"])
def test_an_unknown_device_is_refused(device: Any, bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=rf"unknown device '{device}'; give one of cpu, cuda, tensorrt, .*: cuda:1"):
        OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, device=device)


def test_a_device_beside_options_is_refused(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="device is 'cuda', and options are given too"):
        OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, device="cuda", options=SessionOptions())


def test_what_the_cpu_build_says_to_a_gpu(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"device 'cuda' needs the CUDAExecutionProvider.*'speech-export\[cuda\]'"):
        OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, device="cuda:0")


@pytest.mark.parametrize(
    ("made_for", "called", "device", "target"),
    [
        ("cpu", "the CPU", "tensorrt", "tensorrt"),
        ("cpu", "the CPU", "tensorrt_rtx", "tensorrt"),
        ("cpu", "the CPU", "cuda:1", "cuda"),
        ("cuda", "CUDA", "tensorrt", "tensorrt"),
        ("cuda", "CUDA", "tensorrt_rtx:1", "tensorrt"),
        ("cpu", "the CPU", "engines", "tensorrt"),
        ("cuda", "CUDA", "engines:1", "tensorrt"),
    ],
)
def test_a_device_takes_only_graphs_that_it_can_run(
    made_for: str, called: str, device: str, target: str, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle", target=made_for)
    with pytest.raises(EngineError, match=rf"was exported for {called}, with .* again with --target {target}$"):
        OnnxSpeechSeq2Seq.from_pretrained(bundle, device=device)


def test_the_profiles_hold_a_whole_transcription(digits: Pair) -> None:
    bundle = Bundle.open(digits.directory)
    longest = graph_profiles(bundle, ProfileLimits())[DECODER_WITH_PAST][0]["past"].largest
    assert longest + 1 == bundle.manifest.decoder.max_positions
