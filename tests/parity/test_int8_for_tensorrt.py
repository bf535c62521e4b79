"""Test the bundled model in int8 for TensorRT: the same words, standard ONNX, and int8 weights in the engines."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from filelock import FileLock
from onnx.reference import ReferenceEvaluator

import corpus
import half_matrix
from composites import composite
from conftest import CHECKPOINT, CLIPS, ONE_THREAD, ExportOnce, Pair
from matrix import DECODER_ROWS, ENCODER_ROWS, Pairing, engine_bytes
from small_graphs import Graph
from speech_export.cli.export import main
from speech_export.passes.quantize.explicit_int8 import quantize_explicitly
from speech_export.passes.quantize.quantizable import Quantizable
from speech_export.precision.conversion import ExplicitQuantizer
from speech_export.precision.options import PrecisionOptions
from speech_export.tensorrt.build import build_engine
from speech_runtime import OnnxSpeechSeq2Seq, SessionOptions
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.backends.tensorrt.library import import_tensorrt
from speech_runtime.bundle.graph_io import DECODER_INIT, DECODER_WITH_PAST, ENCODER, GRAPHS
from speech_runtime.bundle.loading import Bundle
from speech_runtime.bundle.manifest import Manifest
from speech_runtime.bundle.profile_limits import Range
from speech_runtime.bundle.safe_files import FileFacts
from token_agreement import token_agreement

INT8 = PrecisionOptions(precision="int8", target="tensorrt")
BY_THE_BOOK = SessionOptions(intra_op_threads=1, graph_optimization="disabled")


@pytest.fixture(scope="module")
def int8_digits(shared: Path) -> Bundle:
    """The bundled model and its engines, as `speech-export` makes them."""
    target = shared / "digits-int8-tensorrt"
    with FileLock(f"{target}.lock"):
        if not target.exists():
            options = ["--precision", "int8", "--engines", "--trt-flavor", "tensorrt_rtx"]
            result = CliRunner().invoke(
                main, [str(CHECKPOINT), "-o", str(target), *options, "--calibration-audio", str(CLIPS)]
            )
            assert result.exit_code == 0, result.output
    return Bundle.open(target)


def test_tokens_agree_on_real_speech_and_the_bundle_says_so(int8_digits: Bundle, references: dict[Path, str]) -> None:
    manifest, measured = int8_digits.manifest, int8_digits.manifest.verification
    assert (manifest.precision, manifest.target) == ("int8", "tensorrt")
    found = manifest.quantization
    assert (found.encoder, found.decoder, found.op_kinds) == ("int8", "int8", ("matmul", "embedding"))
    assert found.kept_float32 == ()
    assert measured.clips == len(references)
    assert measured.token_agreement >= 0.98
    assert 0 < measured.mean_logprob_difference <= 0.1
    assert measured.word_error_rate <= measured.reference_word_error_rate + 0.02
    (engines,) = manifest.engines
    assert {Path(path).stem for path in engines.files} == set(GRAPHS)


@pytest.mark.parametrize("options", [BY_THE_BOOK, ONE_THREAD], ids=["by the book", "products of bytes"])
def test_the_clips_are_heard_as_in_float32(
    options: SessionOptions, int8_digits: Bundle, digits: Pair, references: dict[Path, str]
) -> None:
    model = OnnxSpeechSeq2Seq.from_pretrained(int8_digits.directory, options=options)
    files = list(references)
    assert model.transcribe(files, num_beams=4) == digits.exported.transcribe(files, num_beams=4)


def test_the_clips_are_heard_where_products_of_bytes_saturate(
    int8_digits: Bundle, digits: Pair, references: dict[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There ONNX Runtime's exact products of bytes fail on this graph, and floats are multiplied instead."""
    monkeypatch.setattr("speech_runtime.backends.onnxruntime.sessions.bytes_saturate", lambda: True)
    model = OnnxSpeechSeq2Seq.from_pretrained(int8_digits.directory, options=ONE_THREAD)
    files = list(references)
    assert model.transcribe(files, num_beams=4) == digits.exported.transcribe(files, num_beams=4)


def test_tokens_agree_on_recordings_that_nothing_was_measured_on(int8_digits: Bundle, digits: Pair, fsdd: Path) -> None:
    model = OnnxSpeechSeq2Seq.from_pretrained(int8_digits.directory, options=BY_THE_BOOK)
    inputs, mask = digits.exported.feature_extractor([clip for clip, _ in corpus.test_strings(fsdd, 24, seed=13)])
    for beams in (1, 4):
        expected, found = (each.generate(inputs, mask, num_beams=beams) for each in (digits.exported, model))
        assert token_agreement(expected, found) >= 0.98


def test_the_graphs_are_standard_and_small_and_their_interface_is_float32(int8_digits: Bundle, digits: Pair) -> None:
    for graph in GRAPHS:
        model = onnx.load(int8_digits.path(f"{graph}.onnx"))
        onnx.checker.check_model(model, full_check=True)
        assert {entry.domain: entry.version for entry in model.opset_import} == {"": 20}
    float32 = Bundle.open(digits.directory).manifest.files
    for graph in (DECODER_INIT, DECODER_WITH_PAST):
        assert int8_digits.manifest.files[f"{graph}.onnx"].size < 0.4 * float32[f"{graph}.onnx"].size
    backend = OnnxRuntimeBackend(int8_digits, ONE_THREAD)
    of_states = [(ENCODER, "input_values"), (DECODER_INIT, "encoder_hidden_states"), (DECODER_WITH_PAST, "past.0.key")]
    assert {backend.dtype(graph, name) for graph, name in of_states} == {np.dtype(np.float32)}


def test_the_reference_evaluator_finds_the_same_numbers(int8_digits: Bundle) -> None:
    states = np.random.default_rng(0).standard_normal((2, 7, 96)).astype(np.float32)
    path = str(int8_digits.path("decoder_init.onnx"))
    names = [output.name for output in onnx.load(path).graph.output]
    expected = ReferenceEvaluator(path).run(names, {"encoder_hidden_states": states})
    backend = OnnxRuntimeBackend(int8_digits, BY_THE_BOOK)
    found = backend.run(DECODER_INIT, {"encoder_hidden_states": backend.upload(states)}, names)
    for name, array in zip(names, expected, strict=True):
        np.testing.assert_allclose(backend.download(found[name]), array, rtol=0, atol=1e-4)


def test_an_engine_holds_bytes(tmp_path: Path) -> None:
    graph = Graph(x=ir.DataType.FLOAT)
    weight = np.random.default_rng(0).standard_normal((32, 2**16)).astype(np.float32)
    product = graph.add("MatMul", graph.inputs["x"], graph.weight("weight", weight), name="proj")
    product.shape = ir.Shape(["a", "b", 2**16])
    model, sizes = graph.model(product), []
    model.graph.name = "product"
    for name in ("float32", "int8"):
        if name == "int8":
            found = Quantizable.find(model.graph, INT8, words=0)
            quantize_explicitly(model, found, {"x": 3.0})
        ir.save(model, tmp_path / f"{name}.onnx")
        profile = {"a": Range(1, 1, 2), "b": Range(1, 8, 16)}
        build_engine(import_tensorrt("tensorrt_rtx"), tmp_path / f"{name}.onnx", [profile], tmp_path / f"{name}.engine")
        sizes.append((tmp_path / f"{name}.engine").stat().st_size)
    assert sizes[0] > weight.nbytes
    assert sizes[1] < 0.4 * weight.nbytes


@pytest.mark.full
@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in [*DECODER_ROWS, *ENCODER_ROWS]])
def test_a_family_in_int8(row: Pairing, export_once: ExportOnce, tmp_path: Path) -> None:
    gpu = PrecisionOptions(target="tensorrt")
    float32 = export_once(f"{row.name} for tensorrt", composite(row.decoder, row.encoder), precision=gpu)
    noise = half_matrix.noise(float32)
    conversion = ExplicitQuantizer(float32, Bundle.open(float32).manifest, INT8, [noise])
    assert conversion.write(tmp_path, frozenset()) == frozenset()
    manifest = Manifest.read(tmp_path)
    replace(manifest, files={name: FileFacts.of(tmp_path / name) for name in manifest.files}).write(tmp_path)
    found = half_matrix.drift(half_matrix.Halved(float32, tmp_path, tmp_path, frozenset()), [noise])
    assert found.next_tokens >= 0.8  # random weights put many words close together
    assert found.mean <= 0.1
    for graph in GRAPHS:
        assert engine_bytes(Bundle.open(tmp_path), graph) > 0
