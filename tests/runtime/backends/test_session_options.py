"""Test session options: those refused, those passed to ONNX Runtime, and unavailable providers. The GPU is a stub."""

import gc
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import onnxruntime
import pytest

from conftest import Pair
from handmade_bundle import make_bundle
from speech_runtime import (
    Bundle,
    BundleError,
    CudaOptions,
    EngineError,
    OnnxSpeechSeq2Seq,
    SessionOptions,
    TensorRtOptions,
)
from speech_runtime.backends.onnxruntime import providers, sessions
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.backends.options import MOST_THREADS
from speech_runtime.bundle.graph_io import ENCODER, GRAPHS, Cache
from speech_runtime.bundle.manifest import Quantization

NOISE = np.random.default_rng(0).standard_normal((1, 16000)).astype(np.float32)
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(make_bundle(tmp_path / "bundle"))


class StubSession:
    """Records how sessions were made. `registered` are the providers that they report; None for the requested ones."""

    made: list["StubSession"] = []  # noqa: RUF012 - a fixture replaces it
    registered: list[str] | None = None
    failure: Exception | None = None

    def __init__(self, path: str, settings: Any, providers: list[Any], enable_fallback: int) -> None:
        if self.failure is not None:
            raise self.failure
        self.path, self.settings, self.providers = Path(path), settings, providers
        self.real = onnxruntime.capi.onnxruntime_inference_collection.InferenceSession(path, providers=[CPU])
        assert enable_fallback == 0
        StubSession.made.append(self)

    def disable_fallback(self) -> None:
        self.real.disable_fallback()

    def get_providers(self) -> list[str]:
        asked = [name for name, _ in self.providers if name != CPU]
        return [*asked, CPU] if self.registered is None else self.registered

    def get_inputs(self) -> list[Any]:
        return list(self.real.get_inputs())

    def get_outputs(self) -> list[Any]:
        return list(self.real.get_outputs())


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[StubSession]:
    """Make ONNX Runtime look like its GPU build."""
    monkeypatch.setattr(StubSession, "made", [])
    monkeypatch.setattr(onnxruntime, "InferenceSession", StubSession)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace())
    monkeypatch.setattr(providers, "_DRIVER", "libc.so.6")  # exists everywhere
    return StubSession


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device is 'gpu'; give one of 'cpu', 'cuda', 'tensorrt', 'tensorrt_rtx'"),
        ({"device_id": -1}, r"device_id is -1; give 0 \(the first GPU\) or more"),
        ({"intra_op_threads": -1}, r"intra_op_threads is -1; give 0 \(all cores\) to"),
        ({"intra_op_threads": 1.5}, "intra_op_threads is 1.5"),
        ({"intra_op_threads": True}, "intra_op_threads is True"),
        ({"inter_op_threads": 0}, r"inter_op_threads is 0; give 1 \(one operator after the other\) to"),
        ({"cpu_memory_arena": 0}, "cpu_memory_arena is 0; give True or False"),
        ({"memory_pattern": "no"}, "memory_pattern is 'no'; give True or False"),
        (
            {"intra_op_threads": 2**31},
            rf"is 2147483648; give 0 .* {MOST_THREADS} threads \(--threads\)",
        ),
        ({"intra_op_threads": MOST_THREADS + 1}, f" to {MOST_THREADS} threads"),
        ({"inter_op_threads": MOST_THREADS + 1}, f" to {MOST_THREADS}$"),
        ({"graph_optimization": 99}, "graph_optimization is 99; give one of 'disabled', 'basic', 'extended', 'all'"),
        (
            {"log_severity": "debug"},
            "log_severity is 'debug'; give one of 'verbose', 'info', 'warning',",
        ),
        ({"optimized_model_cache": True}, "optimized_model_cache is True; give a directory, or None"),
        ({"optimized_model_cache": ""}, "optimized_model_cache is ''"),
        ({"providers": [CPU]}, "give a tuple of pairs of name and options"),
        ({"providers": (CPU,)}, "providers has .*; give a pair of name and options"),
        ({"providers": ((CPU, None),)}, "providers has .*; give a pair of name and options"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        SessionOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_id": 1}, "device_id is 1, and device 'cpu' has no number"),
        ({"device": "cuda", "inter_op_threads": 2}, "inter_op_threads is 2, and device 'cuda' runs one operator"),
        ({"providers": ((CUDA, {}),)}, "device is 'cpu'; set device='cuda'"),
        ({"providers": ((TENSORRT, {}), (CUDA, {}))}, "device is 'cpu'; set device='tensorrt'"),
        ({"device": "tensorrt", "providers": ((CUDA, {}),)}, "providers begins with CUDA"),
        ({"device": "cuda", "providers": ((TENSORRT, {}), (CUDA, {}))}, "put CUDAExecutionProvider first"),
        ({"providers": ((CPU, {}), (CPU, {}))}, "providers has CPUExecutionProvider 2 times"),
        ({"device": "cuda", "providers": ((CUDA, {"device_id": 3}),)}, "device_id is 0, and 3 in the options of CUDA"),
        ({"graph_optimization": "disabled", "optimized_model_cache": "c"}, "there is nothing to cache"),
        (
            {"device": "tensorrt", "optimized_model_cache": "c"},
            r"its engines instead: tensorrt=TensorRtOptions\(engine_c",
        ),
        ({"device": "tensorrt_rtx", "providers": ((TENSORRT, {}),)}, "put NvTensorRTRTXExecutionProvider first"),
        ({"cuda": CudaOptions(tf32=True)}, "cuda is set, and device 'cpu' does not use it"),
        ({"device": "cuda", "tensorrt": TensorRtOptions(zero_past=False)}, "tensorrt is set, and device 'cuda' does"),
        (
            {"device": "cuda", "cuda": CudaOptions(tf32=True), "providers": ((CUDA, {}),)},
            "cuda is set, and providers has options of its own",
        ),
        (
            {"device": "tensorrt_rtx", "tensorrt": TensorRtOptions(zero_past=False)},
            "has no CUDA provider",
        ),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        SessionOptions(**options)


def test_all_that_is_wrong_is_listed_at_once() -> None:
    with pytest.raises(EngineError, match="device is 'tpu'.*; intra_op_threads is -2.*; memory_pattern is None"):
        SessionOptions(device="tpu", intra_op_threads=-2, memory_pattern=None)
    with pytest.raises(TypeError, match="threads"):
        SessionOptions(threads=4)  # type: ignore[call-arg]


def test_every_option_reaches_onnx_runtime(bundle: Bundle, stub: type[StubSession]) -> None:
    options = SessionOptions(
        intra_op_threads=3,
        inter_op_threads=2,
        cpu_memory_arena=False,
        memory_pattern=False,
        graph_optimization="extended",
        log_severity="warning",
    )
    OnnxRuntimeBackend(bundle, options)
    assert [made.path.name for made in stub.made] == [f"{graph}.onnx" for graph in GRAPHS]
    assert stub.made[0].settings.intra_op_num_threads == 3
    for made in stub.made:
        assert made.providers == [(CPU, {})]
        assert made.settings.inter_op_num_threads == 2
        assert made.settings.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
        assert made.settings.enable_cpu_mem_arena is False
        assert made.settings.enable_mem_pattern is False
        assert made.settings.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        assert made.settings.log_severity_level == 2


@pytest.mark.parametrize(("size", "threads"), [(2 * 2**20, 1), (2 * 2**20 + 1, 3)])
def test_a_small_decoder_takes_one_thread(bundle: Bundle, stub: type[StubSession], size: int, threads: int) -> None:
    files = {name: replace(facts, size=size) for name, facts in bundle.manifest.files.items()}
    OnnxRuntimeBackend(
        replace(bundle, manifest=replace(bundle.manifest, files=files)), SessionOptions(intra_op_threads=3)
    )
    assert [made.settings.intra_op_num_threads for made in stub.made] == [3, threads, threads]


@pytest.mark.parametrize("cache", ["in_place", "growing"])
def test_only_a_step_in_place_is_planned_by_those_before_it(
    bundle: Bundle, stub: type[StubSession], monkeypatch: pytest.MonkeyPatch, cache: Cache
) -> None:
    monkeypatch.setattr(sessions, "_check_signature", lambda *_: None)
    decoder = replace(bundle.manifest.decoder, cache=cache)
    bundle = replace(bundle, manifest=replace(bundle.manifest, decoder=decoder))
    OnnxRuntimeBackend(bundle, SessionOptions())
    assert [made.settings.enable_mem_pattern for made in stub.made] == [False, False, cache == "in_place"]


def test_all_graphs_share_one_arena_if_there_is_one(bundle: Bundle, stub: type[StubSession]) -> None:
    entry = "session.use_env_allocators"
    OnnxRuntimeBackend(bundle, SessionOptions())
    assert all(made.settings.get_session_config_entry(entry) == "1" for made in stub.made)
    OnnxRuntimeBackend(bundle, SessionOptions(cpu_memory_arena=False))
    with pytest.raises(RuntimeError, match="does not have configuration"):
        stub.made[-1].settings.get_session_config_entry(entry)


def test_each_device_does_without_fusions_that_are_slow_or_inexact_on_it(
    bundle: Bundle, stub: type[StubSession]
) -> None:
    entry = "optimization.disable_specified_optimizers"
    for device in ("cpu", "cuda"):
        OnnxRuntimeBackend(bundle, SessionOptions(device=device))
    cpu, cuda = stub.made[0].settings, stub.made[-1].settings
    assert cpu.get_session_config_entry(entry) == "SkipLayerNormFusion;BiasGeluFusion"
    assert cpu.get_session_config_entry("session.force_spinning_stop") == "1"
    assert cuda.get_session_config_entry(entry) == "BiasGeluFusion"
    with pytest.raises(RuntimeError, match="does not have configuration"):
        cuda.get_session_config_entry("session.force_spinning_stop")


def test_the_defaults_are_those_of_onnx_runtime_but_quieter_and_for_any_length(
    bundle: Bundle, stub: type[StubSession]
) -> None:
    OnnxRuntimeBackend(bundle, SessionOptions())
    made, native = stub.made[0].settings, onnxruntime.SessionOptions()
    for name in ("intra_op_num_threads", "execution_mode", "enable_cpu_mem_arena"):
        assert getattr(made, name) == getattr(native, name)
    assert made.enable_mem_pattern is False
    assert made.graph_optimization_level == native.graph_optimization_level
    assert made.log_severity_level == 3


@pytest.mark.parametrize(
    ("options", "providers"),
    [
        ({"device": "cuda", "device_id": 1}, [(CUDA, {"device_id": "1", **CudaOptions().settings()})]),
        (
            {
                "device": "tensorrt",
                "providers": ((TENSORRT, {"trt_fp16_enable": True}), (CUDA, {"device_id": 0}), (CPU, {})),
            },
            [(TENSORRT, {"trt_fp16_enable": "True"}), (CUDA, {"device_id": "0"}), (CPU, {})],
        ),
        ({"providers": (("OpenVINOExecutionProvider", {"x": 1}),)}, [("OpenVINOExecutionProvider", {"x": "1"})]),
    ],
)
def test_devices_and_overrides_become_providers(
    options: dict[str, Any],
    providers: list[Any],
    bundle: Bundle,
    stub: type[StubSession],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [name for name, _ in providers])
    session_options = SessionOptions(**options)
    OnnxRuntimeBackend(bundle, session_options)
    assert [made.providers for made in stub.made] == [providers] * len(GRAPHS)
    assert session_options.memory == ("cpu" if session_options.device == "cpu" else "cuda")


@pytest.mark.parametrize(
    ("device", "registered", "message"),
    [
        (
            "cuda",
            [CPU],
            r"fell back from CUDAExecutionProvider to CPUExecutionProvider: the CUDA libraries, cuDNN 9 or",
        ),
        ("cuda", [CPU], r"pip install 'speech-export\[cuda\]'"),
        ("tensorrt", [CUDA, CPU], r"fell back from TensorrtExecutionProvider to CUDAExecutionProvider, CPUExecution"),
        ("tensorrt", [CUDA, CPU], r"\(libnvinfer\).*pip install 'speech-export\[cuda,tensorrt\]'"),
        ("tensorrt", [TENSORRT, CPU], r"fell back from CUDAExecutionProvider"),
    ],
)
def test_a_provider_that_silently_fell_away_is_an_error(
    device: str,
    registered: list[str],
    message: str,
    bundle: Bundle,
    stub: type[StubSession],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stub, "registered", registered)
    with pytest.raises(EngineError, match=message):
        OnnxRuntimeBackend(bundle, SessionOptions(device=device))


def test_a_run_whose_provider_fails_is_not_repeated_on_the_cpu(bundle: Bundle) -> None:
    """ONNX Runtime's Python would print two lines, make the session again on the CPU, and run it there."""
    error = onnxruntime.capi.onnxruntime_pybind11_state.EPFail("no plan for the convolution")
    session = OnnxRuntimeBackend(bundle, SessionOptions())._sessions[ENCODER]
    inputs = dict.fromkeys([node.name for node in session.get_inputs()], np.zeros((1, 1), dtype=np.float32))
    session._sess = MagicMock(run=MagicMock(side_effect=error), is_webgpu_graph_capture_enabled=lambda: False)
    with pytest.raises(type(error), match="no plan"):
        session.run(None, inputs)


def test_profiles_are_written_when_the_model_is_released(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "profiles"
    backend = OnnxRuntimeBackend(bundle, SessionOptions(profile=folder))
    del backend
    gc.collect()
    assert sorted(path.name.partition("_2")[0] for path in folder.iterdir()) == sorted(GRAPHS)
    with pytest.raises(EngineError, match=r"profile cannot be written: .*encoder\.onnx: File exists; choose another"):
        OnnxRuntimeBackend(bundle, SessionOptions(profile=bundle.path("encoder.onnx")))


def test_libraries_that_did_not_load_are_named(
    bundle: Bundle, stub: type[StubSession], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"))  # noqa: T201
    monkeypatch.setattr(stub, "registered", [CPU])
    with pytest.raises(EngineError, match=r"did not load \(Failed to load libcudnn.so.9\)"):
        OnnxRuntimeBackend(bundle, SessionOptions(device="cuda"))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"libcudnn.so.9 import of tensorrt halted"):
        OnnxRuntimeBackend(bundle, SessionOptions(device="tensorrt"))
    assert capsys.readouterr().out == ""  # stdout is reserved for transcriptions


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (
            RuntimeError("Unknown provider option: x"),
            EngineError,
            r"cannot be set up: Unknown provider option: x; .*pip",
        ),
        (ValueError("no such device"), EngineError, "CUDAExecutionProvider cannot be set up"),
        (OSError("a damaged graph"), BundleError, "encoder.onnx cannot be loaded: a damaged graph"),
    ],
)
def test_a_provider_that_fails_is_told_from_a_graph_that_does(
    error: Exception,
    expected: type[Exception],
    message: str,
    bundle: Bundle,
    stub: type[StubSession],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stub, "failure", error)
    with pytest.raises(expected, match=message):
        OnnxRuntimeBackend(bundle, SessionOptions(device="cuda"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, r"needs the CUDAExecutionProvider.*has only CPU.*uninstall onnxruntime, then .*\[cuda\]'"),
        ({"device": "tensorrt"}, r"needs the TensorrtExecutionProvider.*pip install 'speech-export\[cuda,tensorrt\]'"),
        ({"providers": (("QNNExecutionProvider", {}),)}, "install a build of ONNX Runtime with the QNNExecution"),
    ],
)
def test_a_build_without_the_provider_is_named(
    options: dict[str, Any], message: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(EngineError, match=message):
        OnnxRuntimeBackend(bundle, SessionOptions(**options))


@pytest.mark.parametrize(
    ("driver", "said"), [("libnowhere.so.1", "libnowhere.so.1: .*see nvidia-smi"), ("libc.so.6", "")]
)
def test_a_missing_driver_is_told_from_missing_libraries(
    driver: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "_DRIVER", driver)
    runtime = SimpleNamespace(preload_dlls=lambda: None)
    assert re.fullmatch(said, providers.preload_libraries(runtime, SessionOptions(device="cuda")))
    assert providers.preload_libraries(runtime, SessionOptions()) == ""


@pytest.mark.parametrize(("device", "extra"), [("cpu", "cpu"), ("cuda", "cuda"), ("tensorrt", "cuda,tensorrt")])
def test_without_onnx_runtime_the_extra_is_named(
    device: str, extra: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    replace(bundle.manifest, target="tensorrt").write(bundle.directory)
    with pytest.raises(EngineError, match=rf"pip install 'speech-export\[{extra}\]'"):
        OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=SessionOptions(device=device))


def test_an_onnx_runtime_that_does_not_load_is_not_said_to_be_missing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime.capi", None)
    for name in [name for name in sys.modules if name == "onnxruntime" or name.startswith("onnxruntime.capi.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(EngineError, match="is installed, and cannot be loaded: .*onnxruntime.capi"):
        OnnxRuntimeBackend(bundle, SessionOptions())


@pytest.mark.parametrize(
    "options",
    [
        {"graph_optimization": "disabled"},
        {"cpu_memory_arena": False, "memory_pattern": False},
        {"inter_op_threads": 2, "intra_op_threads": 1},
    ],
)
def test_options_do_not_change_the_answer(digits: Pair, options: dict[str, Any]) -> None:
    model = OnnxSpeechSeq2Seq.from_pretrained(digits.directory, options=SessionOptions(**options))
    np.testing.assert_array_equal(model.generate(NOISE, num_beams=3), digits.exported.generate(NOISE, num_beams=3))


@pytest.mark.parametrize("level", ["disabled", "basic"])
def test_without_vnni_only_products_of_bytes_want_to_be_fused(
    level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 for TensorRT is standard ONNX: unfused, it multiplies floats, which every processor does exactly."""
    monkeypatch.setattr("speech_runtime.backends.onnxruntime.sessions.bytes_saturate", lambda: True)
    int8, options = Quantization("int8", "int8", ("matmul",), None, None, ()), SessionOptions(graph_optimization=level)
    for target in ("cpu", "tensorrt"):
        make_bundle(tmp_path / target, precision="int8", target=target, quantization=int8)
    with pytest.raises(EngineError, match=f"{level}.*this processor has no VNNI"):
        OnnxRuntimeBackend(Bundle.open(tmp_path / "cpu"), options)
    OnnxRuntimeBackend(Bundle.open(tmp_path / "tensorrt"), options)


def test_optimised_graphs_are_kept_and_used_again(
    digits: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = SessionOptions(intra_op_threads=1, optimized_model_cache=tmp_path / "cache")
    expected = digits.exported.generate(NOISE, num_beams=3)

    def load() -> dict[Path, int]:
        model = OnnxSpeechSeq2Seq.from_pretrained(digits.directory, options=options)
        np.testing.assert_array_equal(model.generate(NOISE, num_beams=3), expected)
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.onnx")}

    first = load()
    assert len(first) == 3
    assert load() == first
    assert not caplog.records
    damaged = next(iter(first))
    damaged.write_bytes(b"not a graph")
    assert load().keys() == first.keys()
    assert "is not used, and written again" in caplog.text
    assert damaged.stat().st_size > 1000
