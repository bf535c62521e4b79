"""Test that the parts which half precision would damage, by overflow or by rounding, stay in float32."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from torch import nn
from transformers import SpeechEncoderDecoderModel

import half_matrix
from composites import composite
from conftest import ONE_THREAD, ExportOnce
from half_matrix import FP16_FOR_TENSORRT as FP16
from half_matrix import Halved
from speech_export import ExportError, VerificationError
from speech_export.limits import Limits
from speech_export.passes.half.convert import round_explicitly, to_half
from speech_export.precision.accuracy_gate import Converted, convert_accurately
from speech_export.precision.conversion import HalfPrecision
from speech_export.precision.fp16_simulation import ROUNDED
from speech_export.precision.options import PrecisionOptions
from speech_export.tracing.tracer import save
from speech_export.verification.evaluation_audio import AudioSet, Batch
from speech_export.verification.reference import Expectation, expectations
from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.bundle.graph_io import DECODER_INIT, DECODER_WITH_PAST
from speech_runtime.bundle.loading import Bundle
from speech_runtime.bundle.safe_files import FileFacts

OFFSET = "decoder.bert.encoder.layer.1.*"
"""Pattern of the layers kept in float32: `*` matches dots too."""
Array = NDArray[Any]


def scaled(first: nn.Linear, second: nn.Linear, factor: float) -> None:
    """Between two layers numbers are `factor` times as large."""
    first.weight.data *= factor
    first.bias.data *= factor
    second.weight.data /= factor


@pytest.fixture(scope="module")
def model() -> SpeechEncoderDecoderModel:
    """A model with numbers of a million, in the middle of the encoder and in two caches; and with keys around 3000.

    A softmax takes no notice of what all keys have in common, but the next half above 3000 is 3002.
    """
    model = composite("bert")
    feed_forward = model.encoder.encoder.layers[0].feed_forward
    scaled(feed_forward.intermediate_dense, feed_forward.output_dense, 1e6)
    first, second = model.decoder.bert.encoder.layer
    scaled(first.attention.self.value, first.attention.output.dense, 1e6)
    scaled(first.crossattention.self.value, first.crossattention.output.dense, 1e6)
    for attention in (second.attention, second.crossattention):
        attention.self.key.bias.data += 3000
    return model


@pytest.fixture(scope="module")
def float32(model: SpeechEncoderDecoderModel, export_once: ExportOnce) -> Path:
    # For TensorRT, whose graphs keep the biases of the keys.
    gpu = PrecisionOptions(target="tensorrt")
    return export_once("hard on half", model, precision=gpu, limits=Limits(0.1, 0.9))  # and not easy on float32


@pytest.fixture(scope="module")
def expected(model: SpeechEncoderDecoderModel, float32: Path) -> list[Expectation]:
    inputs, mask = half_matrix.noise(float32)
    audio = AudioSet("noise", (Batch(inputs, mask, (None,) * len(inputs)),), speech=False)
    return list(expectations(model, audio, 24, whole=False))


@pytest.fixture(scope="module")
def halved(float32: Path, tmp_path_factory: pytest.TempPathFactory) -> Halved:
    """With what 11 bits do not tell apart in float32 on request."""
    return half_matrix.make(float32, tmp_path_factory.mktemp("half"), replace(FP16, keep_float32=(OFFSET,)))


def converted(
    float32: Path, directory: Path, options: PrecisionOptions, expected: list[Expectation], agreement: float
) -> Converted:
    conversion = HalfPrecision(float32, Bundle.open(float32).manifest, options, [half_matrix.noise(float32)])
    limits = Limits(math.inf)
    object.__setattr__(limits, "agreement", agreement)  # more than 1, which nothing reaches, is refused of a user
    return convert_accurately(conversion, directory, expected, limits, lambda _: None)


def test_numbers_too_large_for_half_stay_float32_and_right(halved: Halved) -> None:
    states = {"cross.0.value", "past.0.value", "present.0.value"}
    dense = "encoder.encoder.layers.0.feed_forward.intermediate_dense"
    assert {dense, *states} <= halved.kept
    assert "encoder.encoder.layers.1.feed_forward.intermediate_dense" not in halved.kept
    found = half_matrix.drift(halved, [half_matrix.noise(halved.float32)])
    assert found.next_tokens >= 0.97
    assert found.mean <= 5e-3
    assert half_matrix.from_definition(halved) <= 3e-2


def test_without_the_measurement_they_would_be_wrong(halved: Halved, tmp_path: Path) -> None:
    spoilt = tmp_path / "bundle"
    shutil.copytree(halved.rounded, spoilt)
    model = ir.load(halved.float32 / "encoder.onnx")
    to_half(model, float32_interface={"input_values"})
    round_explicitly(model)
    with np.errstate(over="ignore"):  # of weights
        save(model, spoilt / "encoder.onnx")
    manifest = Bundle.open(halved.rounded).manifest
    replace(manifest, files=manifest.files | {"encoder.onnx": FileFacts.of(spoilt / "encoder.onnx")}).write(spoilt)
    wanted, found = (encoded(directory, *half_matrix.noise(halved.float32)) for directory in (halved.float32, spoilt))
    assert not np.allclose(found, wanted, atol=0.5)


def encoded(directory: Path, inputs: Array, mask: Array) -> Array:
    model = OnnxSpeechSeq2Seq.from_pretrained(directory, options=ROUNDED)
    return model._backend.download(model.encode(inputs, mask).hidden_states)


def test_a_layer_that_hurts_is_found_and_stays_float32(
    float32: Path, expected: list[Expectation], tmp_path: Path
) -> None:
    found = converted(float32, tmp_path, FP16, expected, 0.99)
    layer = "decoder.bert.encoder.layer"
    assert {f"{layer}.1.attention.self.key", f"{layer}.1.crossattention.self.key"} <= set(found.kept_float32)
    assert f"{layer}.0.attention.self.key" not in found.kept_float32
    assert found.result.agreement >= 0.99
    backend = OnnxRuntimeBackend(Bundle.open(tmp_path, check_hashes=False), ONE_THREAD)
    dtypes = {name: backend.dtype(DECODER_WITH_PAST, name) for name in ("past.0.key", "past.1.key", "cross.1.key")}
    assert dtypes == {"past.0.key": np.float16, "past.1.key": np.float32, "cross.1.key": np.float32}


def test_what_cannot_agree_is_refused(float32: Path, expected: list[Expectation], tmp_path: Path) -> None:
    options = replace(FP16, keep_float32=("*",))
    with pytest.raises(VerificationError, match=r"with nothing in float32, .*export with --precision fp32"):
        converted(float32, tmp_path, options, expected, 1.01)


@pytest.mark.parametrize(
    ("options", "states"),
    [
        (replace(FP16, decoder_precision="fp32"), (np.float32, np.float32)),
        (replace(FP16, encoder_precision="fp32", keep_float32=(OFFSET,)), (np.float32, np.float16)),
    ],
)
def test_one_side_alone_may_be_half(options: PrecisionOptions, states: Any, float32: Path, tmp_path: Path) -> None:
    halved = half_matrix.make(float32, tmp_path, options)
    assert half_matrix.drift(halved, [half_matrix.noise(float32)]).next_tokens >= 0.97
    backend = OnnxRuntimeBackend(Bundle.open(halved.half, check_hashes=False), ROUNDED)
    found = backend.dtype(DECODER_INIT, "encoder_hidden_states"), backend.dtype(DECODER_WITH_PAST, "past.0.key")
    assert found == states


def test_nothing_to_measure_on_is_refused(float32: Path) -> None:
    with pytest.raises(ExportError, match="measured on audio, and there is none"):
        HalfPrecision(float32, Bundle.open(float32).manifest, FP16, [])


def test_a_pattern_that_matches_nothing_is_refused(float32: Path) -> None:
    options = replace(FP16, keep_float32=("decoder.lm_haed",))
    with pytest.raises(ExportError, match="'decoder.lm_haed' matches nothing that is converted; there are"):
        HalfPrecision(float32, Bundle.open(float32).manifest, options, [])
