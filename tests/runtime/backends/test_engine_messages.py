"""Test that errors of engines are one line: graph, node and shape, then the cause. The log has all of it."""

import logging
from pathlib import Path

import numpy as np
import onnx.parser
import onnxruntime
import pytest

from handmade_bundle import make_bundle
from speech_runtime import Bundle, EngineError, SessionOptions
from speech_runtime.backends.engine_messages import failed_run, in_one_line
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.bundle.graph_io import ENCODER

SIGNATURE = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cudnn_fe_call.cc:99 std::conditional_t<THRW, void, "
    "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, int) [with ERRTYPE = "
    "cudnn_frontend::error_object; bool THRW = true; std::conditional_t<THRW, void, common::Status> = void] "
)
CUDNN = (
    "[ONNXRuntimeError] : 11 : EP_FAIL : Non-zero status code returned while running Conv node. Name:'pos_conv.conv' "
    f"Status Message: Failed to initialize CUDNN Frontend{SIGNATURE}{SIGNATURE}CUDNN_FE failure 8: "
    "HEURISTIC_QUERY_FAILED ; GPU=0 ; hostname=here ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/nn/conv.cc "
    "; line=238 ; expr=s_.cudnn_fe_graph->create_execution_plans({heur_mode}); \n\nwith the cudnn frontend json:\n"
    + '{"context":{"compute_data_type":"FLOAT","tensors":{"::Y":{"dim":[16,64,144,144]}}}}'
    * 50
)
COPY = "cudaMemcpyAsync(dst_data, src_data, bytes, cudaMemcpyDeviceToHost, stream)"
MEMORY = (
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 700: an illegal memory access was encountered ; GPU=1 ; hostname=x ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/gpu_data_transfer.cc ; line=73 ; "
    f"expr={COPY};"
)


def test_cudnns_json_becomes_one_line() -> None:
    shapes = {"input_values": [1, 160_000], "attention_mask": [1, 160_000]}
    assert failed_run(ENCODER, RuntimeError(CUDNN), shapes) == (
        "encoder failed in Conv 'pos_conv.conv', input_values [1, 160000], attention_mask [1, 160000]: "
        "CUDNN_FE failure 8: HEURISTIC_QUERY_FAILED in s_.cudnn_fe_graph->create_execution_plans({heur_mode})"
    )


def test_one_cache_stands_for_all() -> None:
    caches = {f"past.{layer}.{kind}": (1, 5, 2, 9, 8) for layer in range(12) for kind in ("key", "value")}
    found = failed_run("decoder_with_past", RuntimeError("x"), {"input_ids": (1, 5, 1), **caches})
    assert found == "decoder_with_past failed, input_ids [1, 5, 1], past.0.key [1, 5, 2, 9, 8]: x"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            MEMORY,
            f"CUDA failure 700: an illegal memory access was encountered in {COPY}",
        ),
        (f"{SIGNATURE}Please install\nTensorRT  libraries", "Please install TensorRT libraries"),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions", "Got invalid dimensions"),
        ("a" * 300, "a" * 300),
        ("a" * 301, "a" * 300 + "… (the log has all of it, level debug)"),
    ],
)
def test_a_cause_is_one_line(message: str, line: str) -> None:
    assert in_one_line(message) == line


def test_a_run_that_fails_says_where_and_writes_nothing_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = Bundle.open(make_bundle(tmp_path / "bundle"))
    sum_of_two = model("sum (float[n] a, float[m] b) => (float[k] c) { c = Add(a, b) }")
    wrong = r"encoder failed in Add '.*', a \[2\], b \[3\]: .{9,338}$"
    for severity, written in (("error", False), ("warning", True)):
        options = SessionOptions(intra_op_threads=1, log_severity=severity)
        backend = OnnxRuntimeBackend(bundle, options)
        backend._sessions[ENCODER] = onnxruntime.InferenceSession(sum_of_two, providers=["CPUExecutionProvider"])
        inputs = {name: backend.upload(np.ones(size, np.float32)) for name, size in (("a", 2), ("b", 3))}
        with caplog.at_level(logging.DEBUG), pytest.raises(EngineError, match=wrong):
            backend.run(ENCODER, inputs, ["c"])
        assert "Non-zero status code returned while running" in caplog.text
        assert ("Non-zero status code returned" in capfd.readouterr().err) == written


def model(graph: str) -> bytes:
    serialized: bytes = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]> {graph}').SerializeToString()
    return serialized
