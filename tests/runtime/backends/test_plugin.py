"""Test the plugin for TensorRT-RTX: how it is registered and chosen, and what its errors say. The GPU is a stub."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from handmade_bundle import make_bundle
from speech_runtime import Bundle, EngineError, OnnxSpeechSeq2Seq, ProfileLimits, SessionOptions, TensorRtOptions
from speech_runtime.backends.onnxruntime import plugin, sessions
from speech_runtime.backends.onnxruntime.plugin import plugin_device
from speech_runtime.backends.onnxruntime.sessions import SessionLoader
from speech_runtime.backends.options import CPU, CUDA, TENSORRT_RTX
from speech_runtime.bundle.graph_io import ENCODER
from stub_cuda import StubRuntime

LIBRARY = "/somewhere/libonnxruntime_providers_nv_tensorrt_rtx.so"


class StubOnnxRuntime:
    """A fake of `onnxruntime` whose plugin has the given devices. Every function in it must exist in the real one."""

    __version__ = "1.32.0"
    OrtDeviceMemoryType = onnxruntime.OrtDeviceMemoryType

    def __init__(self, *numbers: int | None) -> None:
        self.registered: list[tuple[str, str]] = []
        self.failure: Exception | None = None
        self.devices = [device("CPUExecutionProvider", 0), *(device(TENSORRT_RTX, number) for number in numbers)]

    def register_execution_provider_library(self, name: str, path: str) -> None:
        self.registered.append((name, path))
        if self.failure is not None:
            raise self.failure

    def get_ep_devices(self) -> list[Any]:
        return self.devices


def device(name: str, number: int | None) -> Any:
    memory = None if number is None else SimpleNamespace(device_id=number)
    return SimpleNamespace(ep_name=name, memory_info={onnxruntime.OrtDeviceMemoryType.DEFAULT: memory}.get)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put the package of the plugin and a machine with two GPUs in place."""

    def make(capability: str = "8.9", library: str = LIBRARY) -> None:
        package = SimpleNamespace(get_ep_name=lambda: TENSORRT_RTX, get_library_path=lambda: library)
        package.__spec__ = SimpleNamespace()
        monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", package)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", StubRuntime(capability))

    return make


def test_the_library_is_registered_and_the_gpu_chosen_by_its_number(install: Callable[..., None]) -> None:
    install()
    runtime = StubOnnxRuntime(None, 1, 0)
    assert plugin_device(runtime, 0) is runtime.devices[3]
    assert plugin_device(runtime, 1) is runtime.devices[2]
    assert runtime.registered[0] == (TENSORRT_RTX, LIBRARY)


def test_what_another_model_has_registered_is_used(install: Callable[..., None]) -> None:
    install()
    runtime = StubOnnxRuntime(0)
    runtime.failure = RuntimeError(f"EP library is already registered under {TENSORRT_RTX}")
    assert plugin_device(runtime, 0) is runtime.devices[1]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", None)
    bundle = make_bundle(tmp_path / "bundle", target="tensorrt")
    with pytest.raises(
        EngineError, match=r"needs the package onnxruntime-ep-nv-tensorrt-rtx.*'speech-export\[tensorrt-rtx-plugin\]'"
    ):
        OnnxSpeechSeq2Seq.from_pretrained(bundle, device="tensorrt_rtx")


def test_a_library_that_does_not_load_is_named_in_onnx_runtimes_words(
    install: Callable[..., None], tmp_path: Path
) -> None:
    broken = tmp_path / "libplugin.so"
    broken.write_text("no library")
    install(library=str(broken))
    with pytest.raises(
        EngineError, match=r"tensorrt-rtx does not load: .*Failed to load library .*libplugin.so.*driver"
    ):
        plugin_device(onnxruntime, 0)


@pytest.mark.skipif(
    plugin.importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx") is None, reason="the plugin is not installed"
)
def test_the_real_plugin_is_found_and_needs_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", StubRuntime())
    with pytest.raises(EngineError, match=r"does not load: .*libcuda.so.1: cannot open|does not offer GPU 0"):
        plugin_device(onnxruntime, 0)


@pytest.mark.parametrize("capability", ["9.0", "10.0"])
def test_a_gpu_that_tensorrt_rtx_does_not_support_is_named_before_anything_is_loaded(
    capability: str, install: Callable[..., None]
) -> None:
    install(capability)
    runtime = StubOnnxRuntime(0)
    with pytest.raises(EngineError, match=rf"not support GPUs of compute capability {capability}.*give device='cuda'"):
        plugin_device(runtime, 0)
    assert not runtime.registered


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((), r"does not offer GPU 1 \(compute capability 8.0\)\. It takes .*8.6, 8.9, 12.0 .*driver from 555.85"),
        ((0,), r"does not offer GPU 1 \(compute capability 8.0\), only 0\. It takes"),
    ],
)
def test_a_gpu_that_the_plugin_does_not_take_is_named(
    numbers: tuple[int, ...], message: str, install: Callable[..., None]
) -> None:
    install("8.0")
    with pytest.raises(EngineError, match=message):
        plugin_device(StubOnnxRuntime(*numbers), 1)


@pytest.mark.parametrize("version", ["1.23.2", "1.30.0"])
def test_an_onnx_runtime_that_is_too_old_is_named(version: str, install: Callable[..., None]) -> None:
    install()
    runtime = StubOnnxRuntime(0)
    runtime.__version__ = version
    with pytest.raises(EngineError, match=f"needs ONNX Runtime 1.31 or later, and {version} is installed"):
        plugin_device(runtime, 0)


def test_sessions_get_the_device_and_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's own CPU device takes the place of the plugin's, and keeps the options that it does not know."""
    (cpu,) = onnxruntime.get_ep_devices()
    made: list[Any] = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, path: str, settings: Any, **arguments: Any) -> None:
            super().__init__(path, settings, **arguments)
            made.append((settings, arguments))

    monkeypatch.setattr(sessions, "plugin_device", lambda *_: cpu)
    monkeypatch.setattr(sessions, "check_providers", lambda *_: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    bundle = Bundle.open(make_bundle(tmp_path / "bundle", target="tensorrt"))
    limits = ProfileLimits(seconds=(0.05, 1.0, 2.0))
    options = SessionOptions(
        device="tensorrt_rtx", device_id=1, tensorrt=TensorRtOptions(limits=limits, engine_cache=tmp_path / "cache")
    )
    session = SessionLoader(bundle, options, onnxruntime, check_hashes=True).load(ENCODER, 0)
    assert session.get_providers() == [CPU]
    (settings, arguments), *_ = made
    assert arguments["providers"] is None
    entry = "ep.cpuexecutionprovider.nv_profile_max_shapes"
    assert settings.get_session_config_entry(entry) == "input_values:8x32000,attention_mask:8x32000"
    assert settings.get_session_config_entry("ep.cpuexecutionprovider.nv_runtime_cache_path").startswith(str(tmp_path))
    with pytest.raises(RuntimeError, match="does not have configuration"):
        settings.get_session_config_entry("ep.cpuexecutionprovider.device_id")


def test_other_providers_beside_the_plugin_are_refused() -> None:
    assert SessionOptions(device="tensorrt_rtx", providers=((TENSORRT_RTX, {}), (CPU, {}))).providers
    with pytest.raises(EngineError, match=r"a plugin, beside CUDAExecutionProvider; it runs with the CPU only"):
        SessionOptions(device="tensorrt_rtx", providers=((TENSORRT_RTX, {}), (CUDA, {})))
