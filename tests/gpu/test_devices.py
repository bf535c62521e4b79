"""The same answers on a GPU as on the CPU. Skipped where ONNX Runtime has no such device."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from handmade_bundle import WIDTH, make_bundle
from speech_runtime import Bundle, SessionOptions
from speech_runtime.contract import ENCODER, ENCODER_HIDDEN_STATES
from speech_runtime.engines.onnxruntime import OnnxRuntimeEngine

AVAILABLE = onnxruntime.get_available_providers()


def answer(bundle: Bundle, options: SessionOptions) -> NDArray[Any]:
    engine = OnnxRuntimeEngine(bundle, options)
    rows = engine.upload(np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32))
    outputs = engine.run(ENCODER, {"input_values": rows, "attention_mask": rows}, [ENCODER_HIDDEN_STATES])
    return engine.download(outputs[ENCODER_HIDDEN_STATES])


@pytest.mark.gpu
@pytest.mark.skipif("CUDAExecutionProvider" not in AVAILABLE, reason="this ONNX Runtime has no CUDA")
def test_cuda_answers_like_the_cpu(tmp_path: Path) -> None:
    bundle = Bundle.open(make_bundle(tmp_path / "bundle"))
    cached = SessionOptions(device="cuda", optimized_model_cache=tmp_path / "cache")
    expected = answer(bundle, SessionOptions())
    for options in (SessionOptions(device="cuda"), cached, cached):
        np.testing.assert_allclose(answer(bundle, options), expected, atol=1e-3)  # TF32


@pytest.mark.gpu
@pytest.mark.skipif("TensorrtExecutionProvider" not in AVAILABLE, reason="this ONNX Runtime has no TensorRT")
def test_tensorrt_answers_like_the_cpu(tmp_path: Path) -> None:
    bundle = Bundle.open(make_bundle(tmp_path / "bundle"))
    found = answer(bundle, SessionOptions(device="tensorrt"))
    np.testing.assert_allclose(found, answer(bundle, SessionOptions()), atol=1e-3)
