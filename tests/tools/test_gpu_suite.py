"""Test what tests/gpu stands on, without a GPU: bundles without weights, and the reasons to skip a device."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import gpu_machine
from gpu_cases import CASES
from handmade_bundle import make_bundle
from speech_runtime import Bundle
from speech_runtime.backends.options import CPU, CUDA, TENSORRT
from speech_runtime.bundle.graph_io import GRAPHS
from stub_cuda import StubRuntime
from weightless import Spread, pack, unpack


def weights(bundle: Path, graph: str) -> dict[str, np.ndarray]:
    model = onnx.load(bundle / f"{graph}.onnx")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("external_data", [False, True])
def test_weights_are_made_up_again_and_small_ones_are_kept(external_data: bool, tmp_path: Path) -> None:
    original = make_bundle(tmp_path / "original", external_data=external_data)
    pack(original, tmp_path / "bundle.tar.xz")
    found = [unpack(tmp_path / "bundle.tar.xz", tmp_path / name) for name in ("one", "two")]
    for graph in GRAPHS:
        real, made_up, again = (weights(bundle, graph) for bundle in (original, *found))
        np.testing.assert_array_equal(made_up["bias"], real["bias"])
        np.testing.assert_array_equal(made_up["weight"], again["weight"])
        assert not np.array_equal(made_up["weight"], real["weight"])
        assert made_up["weight"].shape == real["weight"].shape
        assert made_up["weight"].std() == pytest.approx(real["weight"].std(), rel=0.1)
        assert abs(made_up["weight"]).max() <= 1
    assert not np.array_equal(*(weights(found[0], graph)["weight"] for graph in GRAPHS[:2]))
    manifest = Bundle.open(found[0]).manifest  # whose hashes are those of the new files
    assert manifest.verification is None
    assert manifest.decoder == Bundle.open(original).manifest.decoder


def test_a_bundle_can_be_carried_as_it_is(tmp_path: Path) -> None:
    original = make_bundle(tmp_path / "original", external_data=True)
    pack(original, tmp_path / "bundle.tar.xz", keep_weights=True)
    found = unpack(tmp_path / "bundle.tar.xz", tmp_path / "found")
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {
        path.name: path.read_bytes() for path in original.iterdir()
    }


def test_what_is_made_up_stays_within_the_range_of_what_was_forgotten() -> None:
    """The variance of a batch norm must not be negative."""
    variances = np.random.default_rng(0).exponential(size=5000).astype(np.float32)
    found = Spread.of(variances).make_up("variance", 5000, np.float16)
    assert found.dtype == np.float16
    assert found.min() >= np.float16(variances.min()) > 0
    assert found.mean() == pytest.approx(variances.mean(), rel=0.2)


def test_every_case_has_a_file_of_its_own() -> None:
    assert len({case.archive for case in CASES}) == len(CASES)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Why a device is missing on a GPU of that compute capability, with onnxruntime-gpu and without TensorRT."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(gpu_machine, "preload_libraries", lambda *_: "")
    monkeypatch.setattr(gpu_machine, "_NVINFER", "libnowhere.so.10")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", None)

    def find(device: str, capability: str) -> str:
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", StubRuntime(capability))
        reason: str = gpu_machine.missing.__wrapped__(device)
        return reason

    return find


@pytest.mark.parametrize(
    ("device", "capability", "reason"),
    [
        ("tensorrt", "9.0", "libnowhere.so.10: cannot open"),
        ("engines", "9.0", "TensorRT-RTX does not support GPUs of compute capability 9.0"),
        ("tensorrt_rtx", "8.9", "needs the package onnxruntime-ep-nv-tensorrt-rtx"),
    ],
)
def test_a_device_is_skipped_for_what_the_machine_lacks(
    device: str, capability: str, reason: str, missing: Callable[[str, str], str]
) -> None:
    assert reason in missing(device, capability)


def test_a_device_with_all_that_it_needs_is_not_skipped(missing: Callable[[str, str], str]) -> None:
    assert missing("cuda", "9.0") == ""
    assert missing("engines", "8.9") == ""


def test_a_library_of_cuda_that_is_absent_is_a_reason_too(
    missing: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_machine, "preload_libraries", lambda *_: "Failed to load libcudnn.so.9")
    assert missing("cuda", "9.0") == "Failed to load libcudnn.so.9"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    assert missing("cuda", "9.0") == "this ONNX Runtime has no CUDAExecutionProvider"
