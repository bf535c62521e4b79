"""Test the settings of TensorRT's builder. A stub, since TensorRT needs a GPU and TensorRT-RTX has no timing cache."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from speech_export import ExportError
from speech_export.tensorrt.build import BuildOptions, build_engine
from speech_runtime.backends.tensorrt.library import TensorRt
from speech_runtime.bundle.profile_limits import Range

PROFILES = [{"batch": Range(1, 2, 4)}, {"batch": Range(1, 1, 1)}]


class StubConfig:
    """Remembers what was set."""

    def __init__(self) -> None:
        self.flags = {"TF32"}
        self.num_compute_capabilities = 0
        self.capabilities: dict[int, int] = {}
        self.known: bytes | None = None
        self.profiles: list[dict[str, Any]] = []
        self.progress_monitor: Any = None

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def set_compute_capability(self, capability: int, index: int) -> None:
        assert index < self.num_compute_capabilities
        self.capabilities[index] = capability

    def create_timing_cache(self, known: bytes) -> bytes:
        return known

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch
        self.known = cache

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: (self.known or b"") + b"+")

    def add_optimization_profile(self, profile: dict[str, Any]) -> None:
        self.profiles.append(profile)


class StubTensorRt:
    """TensorRT's package as far as a build goes, for a graph with one input [batch, 3]."""

    __version__ = "10.13"
    BuilderFlag = SimpleNamespace(TF32="TF32", STRIP_PLAN="STRIP_PLAN")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=3)
    ComputeCapability = SimpleNamespace(__members__={"SM86": 86, "SM120": 120})
    ILogger = type("ILogger", (), {"ERROR": 1})
    IProgressMonitor = type("IProgressMonitor", (), {})

    def __init__(self, has_gpu: bool = True) -> None:
        self.config, self.has_gpu = StubConfig(), has_gpu
        value = SimpleNamespace(name="x", shape=(-1, 3), get_dimension_name=["batch", None].__getitem__)
        self.network = SimpleNamespace(num_inputs=1, get_input=lambda _: value)

    def Builder(self, sink: Any) -> Any:  # noqa: N802 - TensorRT's own name
        if not self.has_gpu:
            sink.log(1, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(flags: int) -> Any:
            assert flags == 1 << 3, "the network is to be strongly typed"
            return self.network

        def create_profile() -> Any:
            shapes: dict[str, Any] = {}
            return SimpleNamespace(shapes=shapes, set_shape=lambda name, *sizes: shapes.update({name: sizes}))

        return SimpleNamespace(
            create_network=create_network,
            create_builder_config=lambda: self.config,
            create_optimization_profile=create_profile,
            build_serialized_network=lambda network, config: b"an engine",
        )

    def OnnxParser(self, network: Any, sink: Any) -> Any:  # noqa: N802
        return SimpleNamespace(parse_from_file=lambda path: True)


def build(trt: StubTensorRt, path: Path, options: BuildOptions) -> StubConfig:
    build_engine(TensorRt("tensorrt", trt), path / "encoder.onnx", PROFILES, path / "engine", options)
    assert (path / "engine").read_bytes() == b"an engine"
    return trt.config


def test_products_are_exact_and_weights_included_by_default(tmp_path: Path) -> None:
    config = build(StubTensorRt(), tmp_path, BuildOptions())
    assert config.flags == set()
    assert config.known is None
    assert [profile.shapes for profile in config.profiles] == [
        {"x": ((1, 3), (2, 3), (4, 3))},
        {"x": ((1, 3), (1, 3), (1, 3))},
    ]


def test_tf32_stripped_weights_and_gpus_are_options(tmp_path: Path) -> None:
    options = BuildOptions(weights="stripped", tf32=True, compute_capabilities=("12.0", "8.6"))
    config = build(StubTensorRt(), tmp_path, options)
    assert config.flags == {"TF32", "STRIP_PLAN"}
    assert config.capabilities == {0: 120, 1: 86}


def test_the_timing_cache_is_read_where_it_is_and_written_after(tmp_path: Path) -> None:
    cache = tmp_path / "times"
    assert build(StubTensorRt(), tmp_path, BuildOptions(timing_cache=cache)).known == b""
    assert build(StubTensorRt(), tmp_path, BuildOptions(timing_cache=cache)).known == b"+"
    assert cache.read_bytes() == b"++"


def test_tensorrt_without_a_gpu_says_what_does_without(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"initialization failure with error: 35\. It needs .*--trt-flavor tensorrt_rtx"
    ):
        build(StubTensorRt(has_gpu=False), tmp_path, BuildOptions())


def test_a_dimension_without_a_range_is_named(tmp_path: Path) -> None:
    arguments: Any = (TensorRt("tensorrt", StubTensorRt()), tmp_path / "encoder.onnx", [{}], tmp_path / "engine")
    with pytest.raises(ExportError, match=r"the dimension batch of x in encoder\.onnx has no range"):
        build_engine(*arguments)
