"""Test half-precision bundles against float32 ones: the bundled model on real clips, a hard model, every family."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

import half_matrix
from composites import composite
from conftest import ONE_THREAD, ExportOnce, Pair
from matrix import DECODER_ROWS, ENCODER_ROWS, Pairing, bundle_engine_bytes, engine_bytes, padded_batch
from speech_export.precision.fp16_simulation import ROUNDED, write_rounded
from speech_export.precision.options import PrecisionOptions
from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.bundle.graph_io import DECODER_INIT, DECODER_WITH_PAST, ENCODER, GRAPHS
from speech_runtime.bundle.loading import Bundle
from speech_runtime.bundle.profile_limits import ProfileLimits
from speech_runtime.cli.describe import describe
from speech_runtime.generation.decoding.decoder import CachedDecoder

GPU = PrecisionOptions(target="cuda")


@pytest.fixture(scope="module")
def rounded_digits(half_digits: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    directory = tmp_path_factory.mktemp("digits") / "rounded"
    write_rounded(half_digits.directory, directory)
    return Bundle.open(directory)


def test_tokens_agree_on_real_speech_and_the_bundle_says_so(half_digits: Bundle, references: dict[Path, str]) -> None:
    manifest, measured = half_digits.manifest, half_digits.manifest.verification
    assert (manifest.precision, manifest.target, manifest.decoder.cache) == ("fp16", "cuda", "tree")
    kept = manifest.quantization
    assert (kept.encoder, kept.decoder, kept.op_kinds, kept.kept_float32) == ("fp16", "fp16", (), ())
    assert measured.clips == len(references)
    assert measured.token_agreement >= 0.99
    assert measured.greedy_agreement >= 0.99
    assert measured.beam_agreement >= 0.99
    assert 0 < measured.mean_logprob_difference <= 5e-3
    assert measured.p99_logprob_difference <= 2e-2
    assert measured.word_error_rate <= measured.reference_word_error_rate + 0.02
    said = describe(half_digits)
    assert "fp16, for cuda" in said
    assert "against torch on 12 clips (12 files), rounded as a GPU rounds" in said


@pytest.mark.parametrize("name", ["half_digits", "rounded_digits"])
def test_the_clips_are_heard_as_in_float32(
    name: str, digits: Pair, references: dict[Path, str], request: pytest.FixtureRequest
) -> None:
    options = ONE_THREAD if name == "half_digits" else ROUNDED
    model = OnnxSpeechSeq2Seq.from_pretrained(request.getfixturevalue(name).directory, options=options)
    files = list(references)
    assert model.transcribe(files, num_beams=4) == digits.exported.transcribe(files, num_beams=4)


def test_weights_and_caches_take_half_the_memory(half_digits: Bundle, digits: Pair) -> None:
    graphs = [name for name in half_digits.manifest.files if ".onnx" in name]
    sizes = [
        sum(bundle.manifest.files[name].size for name in graphs)
        for bundle in (half_digits, Bundle.open(digits.directory))
    ]
    assert sizes[0] <= 0.6 * sizes[1]
    backend = OnnxRuntimeBackend(half_digits, ONE_THREAD)
    found = [backend.dtype(DECODER_WITH_PAST, name) for name in ("past.0.key", "cross.1.value", "input_ids")]
    assert found == [np.float16, np.float16, np.int64]
    assert backend.dtype(DECODER_INIT, "encoder_hidden_states") == np.float16
    assert backend.dtype(ENCODER, "input_values") == np.float32


def test_no_number_in_a_graph_is_too_large_for_its_type(half_digits: Bundle) -> None:
    for graph in GRAPHS:
        for weight in ir.load(half_digits.path(f"{graph}.onnx")).graph.initializers.values():
            array = weight.const_value.numpy()
            assert array.dtype.kind != "f" or np.isfinite(array).all(), weight.name


@pytest.mark.parametrize("name", ["half_digits", "rounded_digits"])
def test_an_utterance_without_any_audio_gives_no_nan(name: str, request: pytest.FixtureRequest) -> None:
    bundle = request.getfixturevalue(name)
    backend = OnnxRuntimeBackend(bundle, ROUNDED)  # a model would refuse it
    mask = np.stack([np.zeros(16000, dtype=np.int64), np.ones(16000, dtype=np.int64)])
    inputs = np.random.default_rng(0).standard_normal(mask.shape).astype(np.float32)
    feed = {"input_values": backend.upload(inputs), "attention_mask": backend.upload(mask)}
    encoded = backend.run(ENCODER, feed, ["encoder_hidden_states", "encoder_attention_mask"])
    assert np.isfinite(backend.download(encoded["encoder_hidden_states"])).all()
    assert not backend.download(encoded["encoder_attention_mask"])[0].any()
    facts = bundle.manifest.decoder
    decoder = CachedDecoder(backend, facts, 2, encoded["encoder_hidden_states"], encoded["encoder_attention_mask"])
    assert np.isfinite(decoder.logits(np.full((2, 5), 7))).all()


def test_lengths_are_exact_by_definition(digits_for_tensorrt: Path, digits: Pair, tmp_path: Path) -> None:
    """2049 is no half: a length that went through one would be another frame."""
    halved = half_matrix.make(digits_for_tensorrt, tmp_path, half_matrix.FP16_FOR_TENSORRT)
    lengths = np.array([29999, 20483, 8081, 2449])[:, None]
    mask = (np.arange(lengths.max()) < lengths).astype(np.int64)
    feed = {"input_values": np.zeros(mask.shape, dtype=np.float32), "attention_mask": mask}
    evaluator = ReferenceEvaluator(str(Bundle.open(halved.half, check_hashes=False).path("encoder.onnx")))
    (found,) = evaluator.run(["encoder_attention_mask"], feed)
    expected = digits.exported.encode(feed["input_values"], mask).attention_mask
    np.testing.assert_array_equal(found, digits.exported._backend.download(expected))


def test_tensorrt_takes_its_graphs_strongly_typed(digits_for_tensorrt: Path, tmp_path: Path) -> None:
    halved = half_matrix.make(digits_for_tensorrt, tmp_path, half_matrix.FP16_FOR_TENSORRT)
    for graph in GRAPHS:
        assert engine_bytes(Bundle.open(halved.half, check_hashes=False), graph, ProfileLimits()) > 0


@pytest.mark.full
@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in [*DECODER_ROWS, *ENCODER_ROWS]])
@pytest.mark.parametrize(
    "options", [half_matrix.FP16, half_matrix.FP16_FOR_TENSORRT], ids=lambda options: options.target
)
def test_a_family_in_half_precision(
    options: PrecisionOptions, row: Pairing, export_once: ExportOnce, tmp_path: Path
) -> None:
    model, float32 = composite(row.decoder, row.encoder), PrecisionOptions(target=options.target)
    halved = half_matrix.make(
        export_once(f"{row.name} for {options.target}", model, precision=float32), tmp_path, options
    )
    found = half_matrix.drift(halved, [half_matrix.noise(halved.float32)])
    assert found.next_tokens >= 0.97
    assert found.mean <= 5e-3
    assert half_matrix.from_definition(halved) <= 3e-2
    assert options.target == "cuda" or bundle_engine_bytes(halved.half) > 0


@pytest.mark.full
@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ENCODER_ROWS if "rotary" in row.name])
def test_what_is_far_into_the_audio_is_as_exact_as_its_beginning(
    row: Pairing, export_once: ExportOnce, tmp_path: Path
) -> None:
    """2049 is no half: a position that went through one would be another frame's."""
    model = composite(row.decoder, row.encoder)
    halved = half_matrix.make(export_once(f"{row.name} for cuda", model, precision=GPU), tmp_path)
    facts = Bundle.open(halved.float32).manifest.encoder
    inputs, mask = padded_batch(facts, [facts.min_length + 2600 * facts.stride])
    encoded = []
    for directory, options in ((halved.float32, ONE_THREAD), (halved.rounded, ROUNDED)):
        exported = OnnxSpeechSeq2Seq.from_pretrained(directory, options=options)
        encoded.append(exported._backend.download(exported.encode(inputs, mask).hidden_states).astype(np.float32))
    differences = np.abs(encoded[0] - encoded[1])[0].mean(axis=-1)
    assert differences[2048:].mean() <= 1.5 * differences[:512].mean()
