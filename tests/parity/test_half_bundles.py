"""Half-precision bundles against their float32 twins: the bundled model on real clips, and every family."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from torch import nn

import half_matrix
from composites import CORE_DECODERS, composite
from conftest import CLIPS, ONE_THREAD, Pair
from half_matrix import Halved
from matrix import DECODER_ROWS, ENCODER_ROWS, Pairing
from speech_export import ExportError, export
from speech_export.calibration import ModelInput
from speech_export.gpu_arithmetic import ROUNDED
from speech_export.half_precision import halve
from speech_export.passes.half import to_half
from speech_export.passes.rounding import round_explicitly
from speech_export.trace import save
from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.bundle import Bundle, FileFacts
from speech_runtime.contract import DECODER_WITH_PAST, ENCODER
from speech_runtime.engines.onnxruntime import OnnxRuntimeEngine

INTERFACE = {"input_values", "logits", "top_logprobs"}
Array = NDArray[Any]


@pytest.fixture(scope="module")
def real_speech(digits: Pair) -> list[ModelInput]:
    """All clips of the bundled model, four in a batch."""
    extractor = digits.exported.feature_extractor
    assert extractor is not None
    clips = [digits.exported.load(path) for path in sorted(CLIPS.glob("*.[fw][la]*"))]
    return [extractor(clips[first : first + 4]) for first in range(0, len(clips), 4)]


@pytest.fixture(scope="module")
def half_digits(digits: Pair, real_speech: list[ModelInput], tmp_path_factory: pytest.TempPathFactory) -> Halved:
    return half_matrix.make(digits.directory, tmp_path_factory.mktemp("digits"), real_speech)


def test_tokens_agree_on_real_speech(half_digits: Halved, real_speech: list[ModelInput]) -> None:
    found = half_matrix.drift(half_digits, real_speech)
    assert found.next_tokens >= 0.99
    assert found.searches >= 0.99
    assert found.mean <= 3e-3
    assert found.p99 <= 2e-2


@pytest.mark.parametrize("rounded", [False, True])
def test_the_clips_are_heard_right(half_digits: Halved, references: dict[Path, str], rounded: bool) -> None:
    directory, options = (half_digits.rounded, ROUNDED) if rounded else (half_digits.half, ONE_THREAD)
    model = OnnxSpeechSeq2Seq.from_pretrained(directory, options=options)
    heard = model.transcribe(list(references), num_beams=4)
    assert dict(zip(references, heard, strict=True)) == references


def test_weights_and_caches_take_half_the_memory(half_digits: Halved, real_speech: list[ModelInput]) -> None:
    before, after = Bundle.open(half_digits.float32), Bundle.open(half_digits.half)
    assert (after.manifest.precision, after.manifest.verification) == ("fp16", None)
    graphs = [name for name in after.manifest.files if ".onnx" in name]
    sizes = [sum(bundle.manifest.files[name].size for name in graphs) for bundle in (before, after)]
    assert sizes[1] <= 0.6 * sizes[0]
    model = OnnxSpeechSeq2Seq.from_pretrained(half_digits.half, options=ONE_THREAD)
    encoded = model.encode(*real_speech[0])
    assert model._engine.download(encoded.hidden_states).dtype == np.float16
    engine = OnnxRuntimeEngine(after, ONE_THREAD)
    found = [engine.dtype(DECODER_WITH_PAST, name) for name in ("past.0.key", "cross.1.value", "input_ids")]
    assert found == [np.float16, np.float16, np.int64]
    assert engine.dtype(ENCODER, "input_values") == np.float32


@pytest.mark.parametrize("name", ["half", "rounded"])
def test_an_utterance_without_any_audio_gives_no_nan(half_digits: Halved, name: str) -> None:
    bundle = Bundle.open(getattr(half_digits, name))
    engine = OnnxRuntimeEngine(bundle, ROUNDED)
    mask = np.stack([np.zeros(16000, dtype=np.int64), np.ones(16000, dtype=np.int64)])
    inputs = np.random.default_rng(0).standard_normal(mask.shape).astype(np.float32)
    feed = {"input_values": engine.upload(inputs), "attention_mask": engine.upload(mask)}
    encoded = engine.run(ENCODER, feed, ["encoder_hidden_states", "encoder_attention_mask"])
    assert np.isfinite(engine.download(encoded["encoder_hidden_states"])).all()
    assert not engine.download(encoded["encoder_attention_mask"])[0].any()
    model = OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=ROUNDED)
    decoder = half_matrix.decoder_of(model, encoded["encoder_hidden_states"], encoded["encoder_attention_mask"])
    assert np.isfinite(decoder.logits(np.full((2, 5), 7))).all()


FAMILIES = [
    pytest.param(row, id=row.name, marks=[] if row.name in CORE_DECODERS else [pytest.mark.full])
    for row in [*DECODER_ROWS, *ENCODER_ROWS]
]


@pytest.mark.parametrize("row", FAMILIES)
def test_a_family_in_half_precision(row: Pairing, export_once: Callable[[str, Any], Path], tmp_path: Path) -> None:
    name = row.name if row.name in CORE_DECODERS else f"half of {row.name}"
    halved = half_matrix.make(export_once(name, composite(row.decoder, row.encoder)), tmp_path)
    found = half_matrix.drift(halved, [half_matrix.noise(halved.float32)])
    assert found.next_tokens >= 0.97
    assert found.mean <= 5e-3
    assert half_matrix.from_definition(halved) <= 3e-2
    assert half_matrix.engines(halved) > 0


def scaled(first: nn.Linear, second: nn.Linear, factor: float) -> None:
    """Between two layers numbers are `factor` times as large."""
    first.weight.data *= factor
    first.bias.data *= factor
    second.weight.data /= factor


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Halved:
    """A model with numbers of a million: in the middle of the encoder, and in two caches."""
    model = composite("bert")
    feed_forward = model.encoder.encoder.layers[0].feed_forward
    scaled(feed_forward.intermediate_dense, feed_forward.output_dense, 1e6)
    layer = model.decoder.bert.encoder.layer[0]
    scaled(layer.attention.self.value, layer.attention.output.dense, 1e6)
    scaled(layer.crossattention.self.value, layer.crossattention.output.dense, 1e6)
    directory = tmp_path_factory.mktemp("large")
    export(model, directory / "bundle")
    return half_matrix.make(directory / "bundle", directory)


def test_numbers_too_large_for_half_stay_float32_and_right(large: Halved) -> None:
    encoder = large.report.graphs[ENCODER]
    assert {node.op_type for node in encoder.out_of_range} == {"MatMul", "Add", "Gelu"}
    assert encoder.half_nodes > 10 * len(encoder.out_of_range)
    assert large.report.float32_states == ("cross.0.value", "past.0.value", "present.0.value")
    found = half_matrix.drift(large, [half_matrix.noise(large.float32)])
    assert found.next_tokens >= 0.97
    assert found.mean <= 5e-3


def test_without_the_measurement_they_would_be_wrong(large: Halved, tmp_path: Path) -> None:
    model = ir.load(large.float32 / "encoder.onnx")
    to_half(model, float32_interface=INTERFACE)
    round_explicitly(model)
    spoilt = tmp_path / "bundle"
    shutil.copytree(large.rounded, spoilt)
    ir.external_data.load_to_model(model)
    save(model, spoilt / "encoder.onnx")
    manifest = Bundle.open(large.rounded).manifest
    files = manifest.files | {"encoder.onnx": FileFacts.of(spoilt / "encoder.onnx")}
    replace(manifest, files=files).write(spoilt)
    inputs, mask = half_matrix.noise(large.float32)
    expected, found = (_encoded(directory, inputs, mask) for directory in (large.float32, spoilt))
    assert not np.allclose(found, expected, atol=0.5)


def _encoded(directory: Path, inputs: Array, mask: Array) -> Array:
    model = OnnxSpeechSeq2Seq.from_pretrained(directory, options=ROUNDED, check_hashes=False)
    return model._engine.download(model.encode(inputs, mask).hidden_states)


def test_nothing_to_measure_on_is_refused(digits: Pair, tmp_path: Path) -> None:
    shutil.copytree(digits.directory, tmp_path / "bundle")
    with pytest.raises(ExportError, match="measured on audio, and there is none"):
        halve(tmp_path / "bundle", [])


def test_an_unknown_node_to_keep_is_refused_and_nothing_is_changed(
    digits: Pair, real_speech: list[ModelInput], tmp_path: Path
) -> None:
    directory = tmp_path / "bundle"
    shutil.copytree(digits.directory, directory)
    with pytest.raises(ExportError, match="lm_haed: no graph has such a node"):
        halve(directory, real_speech[:1], keep_float32=["lm_haed"])
    assert Bundle.open(directory).manifest == digits.exported.manifest
    assert sorted(path.name for path in directory.iterdir()) == sorted(path.name for path in digits.directory.iterdir())
