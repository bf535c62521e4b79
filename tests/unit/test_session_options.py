"""How ONNX Runtime is set up: options that contradict, providers that are not there, optimised graphs on disk."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from conftest import Pair
from speech_runtime import EngineError, OnnxSpeechSeq2Seq, SessionOptions

NOISE = np.random.default_rng(0).standard_normal((1, 16000)).astype(np.float32)
CUDA = "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "npu"}, "unknown device 'npu'; known are cpu, cuda, tensorrt"),
        ({"intra_op_threads": -1}, r"intra_op_threads is -1; give 0 \(all cores\) or more"),
        ({"inter_op_threads": 0}, "inter_op_threads is 0"),
        ({"cpu_memory_arena": 1}, "cpu_memory_arena is 1; give True or False"),
        ({"graph_optimization": "most"}, "unknown graph_optimization 'most'; known are disabled, basic"),
        ({"device_id": 1}, "device 'cpu' has no number"),
        ({"providers": ("CPUExecutionProvider",)}, "give a tuple of pairs of name and options"),
        ({"providers": ((CUDA, {}),)}, f"providers has {CUDA}, and device is 'cpu'; set device='cuda'"),
        ({"device": "cuda", "providers": (("CPUExecutionProvider", {}),)}, f"put {CUDA} first"),
        ({"device": "cuda", "device_id": 1, "providers": ((CUDA, {"device_id": 0}),)}, "device_id is 1, and 0 in the"),
        ({"graph_optimization": "disabled", "optimized_model_cache": "x"}, "there is nothing to cache"),
        ({"device": "npu", "device_id": -1}, "unknown device 'npu'.*; device_id is -1"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        SessionOptions(**options)


def test_providers_and_their_options_reach_the_session() -> None:
    options = SessionOptions(device="cuda", device_id=2, providers=((CUDA, {"cudnn_conv_use_max_workspace": 1}),))
    assert options.execution_providers == [(CUDA, {"device_id": "2", "cudnn_conv_use_max_workspace": "1"})]
    names = [name for name, _ in SessionOptions(device="tensorrt").execution_providers]
    assert names == ["TensorrtExecutionProvider", CUDA]


def test_a_provider_that_is_not_there_is_named_with_its_remedy(digits: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match=r"needs the CUDAExecutionProvider.*pip install 'speech-export\[cuda\]'"):
        OnnxSpeechSeq2Seq.from_pretrained(digits.directory, options=SessionOptions(device="cuda"))


def test_a_provider_that_falls_away_is_an_error(digits: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("no libcudart"), raising=False)  # noqa: T201
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, settings, **_: session(path, settings, providers=None)
    )
    with pytest.raises(EngineError, match=r"fell back from CUDAExecutionProvider.*\(no libcudart\)"):
        OnnxSpeechSeq2Seq.from_pretrained(digits.directory, options=SessionOptions(device="cuda"))


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


def test_a_cache_that_cannot_be_written_costs_time_only(
    digits: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    options = SessionOptions(intra_op_threads=1, optimized_model_cache=tmp_path / "file" / "cache")
    model = OnnxSpeechSeq2Seq.from_pretrained(digits.directory, options=options)
    np.testing.assert_array_equal(model.generate(NOISE), digits.exported.generate(NOISE))
    assert "The cache of optimised graphs cannot be written" in caplog.text
