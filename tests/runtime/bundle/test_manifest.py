"""Test damaged bundles: one error lists every problem."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import SpeechEncoderDecoderModel

from conftest import CHECKPOINT, Pair
from handmade_bundle import VERIFICATION, make_bundle
from speech_runtime import Bundle, BundleError, GenerationError, OnnxSpeechSeq2Seq
from speech_runtime.bundle.safe_files import FileFacts


@pytest.fixture
def copy(digits: Pair, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits.directory, tmp_path / "bundle"))


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "bundle.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_bundle_opens_and_says_what_it_is(digits: Pair) -> None:
    bundle = Bundle.open(digits.directory)
    assert bundle.manifest.encoder.min_length == 1560
    assert bundle.manifest.verification is not None
    assert bundle.manifest.verification.max_logprob_difference <= 1e-4
    assert set(bundle.manifest.producer) >= {"speech-export", "torch", "transformers"}


def test_all_damage_is_listed(copy: Path) -> None:
    encoder = copy / "encoder.onnx"
    encoder.write_bytes(encoder.read_bytes()[:-100])
    (copy / "tokenizer.json").unlink()
    config = copy / "generation_config.json"
    config.write_text(config.read_text().replace("2", "3", 1))
    with pytest.raises(BundleError) as error:
        Bundle.open(copy)
    for problem in (
        "encoder.onnx has",
        "tokenizer.json is missing",
        "generation_config.json was changed after the export",
        "export it again",
    ):
        assert problem in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=99), "format version 99, this release reads 2 and 3; upgrade with"),
        (lambda m: m.pop("decoder"), "decoder is missing"),
        (lambda m: m["decoder"].update(layers="two"), "decoder.layers is 'two', expected int"),
        (lambda m: m.update(surprise=1), "surprise is not a known field"),
        (lambda m: m["encoder"].update(stride=0), "encoder.stride is 0, expected 1 to 2,147,483,648"),
        (lambda m: m["encoder"].update(heads=-4, min_length=-1), "heads is -4.* encoder.min_length is -1"),
        (lambda m: m["encoder"].update(frame_stride=0), "encoder.frame_stride is 0"),
        (lambda m: m["decoder"].update(vocab_size=0), "decoder.vocab_size is 0"),
        (lambda m: m["decoder"].update(max_positions=-1, top_k=0), "max_positions is -1, .* decoder.top_k is 0"),
        (lambda m: m["decoder"].update(cache="static"), "cache is 'static' and decoder.cache_length is None; a static"),
        (
            lambda m: m["decoder"].update(cache_length=64),
            "cache_length is 64; a static cache needs a length, and other",
        ),
        (lambda m: m["files"].pop("decoder_init.onnx"), "decoder_init.onnx is not in bundle.json"),
        (lambda m: m["files"].update({"../secret": {"size": 1, "sha256": ""}}), "'../secret' points outside"),
    ],
)
def test_an_edited_manifest_is_refused(copy: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    edit_manifest(copy, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy)


def test_what_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no directory"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"is not a bundle: it has no bundle\.json"):
        Bundle.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BundleError, match="looks like a Hugging Face checkpoint"):
        Bundle.open(tmp_path)
    for written in ("{ truncated", "[" * 100_000, '{"files": ' * 50_000):
        (tmp_path / "bundle.json").write_text(written)
        with pytest.raises(BundleError, match=r"bundle\.json cannot be read"):
            Bundle.open(tmp_path)


def test_a_graph_with_other_inputs_is_refused(copy: Path) -> None:
    path = copy / "encoder.onnx"
    model = onnx.load(path)
    model.graph.input[0].name = "audio"
    for node in model.graph.node:
        node.input[:] = ["audio" if name == "input_values" else name for name in node.input]
    onnx.save(model, path)
    facts = FileFacts.of(path)
    edit_manifest(copy, lambda m: m["files"]["encoder.onnx"].update(size=facts.size, sha256=facts.sha256))
    with pytest.raises(BundleError, match="inputs input_values missing; inputs audio not expected"):
        OnnxSpeechSeq2Seq.from_pretrained(copy)


def test_a_truncated_graph_is_refused_without_hashes_too(copy: Path) -> None:
    path = copy / "encoder.onnx"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    with pytest.raises(BundleError, match=r"encoder\.onnx cannot be loaded"):
        OnnxSpeechSeq2Seq.from_pretrained(copy, check_hashes=False)


def test_a_bundle_of_before_there_were_engines_opens(copy: Path) -> None:
    def older(manifest: dict[str, Any]) -> None:
        del manifest["engines"], manifest["encoder"]["frame_stride"], manifest["encoder"]["extra_frames"]

    edit_manifest(copy, older)
    manifest = Bundle.open(copy).manifest
    assert (manifest.engines, manifest.encoder.frame_stride, manifest.encoder.extra_frames) == ((), None, 1)


def edit(directory: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a bundle, and its size and hash in the manifest."""
    path = directory / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    facts = FileFacts.of(path)
    edit_manifest(directory, lambda m: m["files"][name].update(size=facts.size, sha256=facts.sha256))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"forced_bos_token_id": -1}, "forced_bos_token_id has -1, but the decoder's tokens are 0 … 31"),
        ({"forced_bos_token_id": 32}, "forced_bos_token_id has 32"),
        ({"decoder_start_token_id": -5}, "decoder_start_token_id has -5"),
        ({"eos_token_id": 99}, "eos_token_id has 99"),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
        ({"num_beams": 10**9}, "num_beams is 1000000000"),
        ({"max_time": float("inf")}, "max_time is inf"),
    ],
)
def test_stored_settings_out_of_range_are_refused_at_load(copy: Path, setting: dict[str, Any], message: str) -> None:
    edit(copy, "generation_config.json", lambda settings: settings.update(setting))
    with pytest.raises(GenerationError, match=f"generation_config.json: {message}"):
        OnnxSpeechSeq2Seq.from_pretrained(copy)


def test_the_tokenizer_of_another_model_is_refused_at_load(copy: Path) -> None:
    def grow(tokenizer: dict[str, Any]) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary.update({f"more{token}": token for token in range(len(vocabulary), 40)})

    edit(copy, "tokenizer.json", grow)
    with pytest.raises(BundleError, match=r"tokenizer\.json has 40 tokens, the decoder has 32: .* another model"):
        OnnxSpeechSeq2Seq.from_pretrained(copy)


def test_a_tokenizer_nested_without_end_is_refused_at_load(copy: Path) -> None:
    path = copy / "tokenizer.json"
    path.write_text("[" * 100_000)
    facts = FileFacts.of(path)
    edit_manifest(copy, lambda m: m["files"][path.name].update(size=facts.size, sha256=facts.sha256))
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read"):
        OnnxSpeechSeq2Seq.from_pretrained(copy)


def test_texts_are_neither_cut_nor_padded(copy: Path, digits: Pair) -> None:
    """Bundles of before may say so: transformers stores in tokenizer.json what its last call asked for."""
    truncation = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 8}, "direction": "Right", "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>"}
    edit(copy, "tokenizer.json", lambda tokenizer: tokenizer.update(truncation=truncation, padding=padding))
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    texts = ["five", "five nine eight two"]
    scores = [model.score(noise, texts) for model in (OnnxSpeechSeq2Seq.from_pretrained(copy), digits.exported)]
    np.testing.assert_allclose(*scores, atol=1e-4)
    assert scores[0][0] != scores[0][1]


@pytest.mark.parametrize("token", [-1, 32, "2", 1.5, True])
def test_a_start_of_labels_that_is_no_token_is_named(copy: Path, token: object, digits: Pair) -> None:
    edit(copy, "config.json", lambda config: config.update(decoder_start_token_id=token))
    with pytest.raises((BundleError, GenerationError), match=r"config\.json.*decoder_start_token_id|decoder's 0 … 31"):
        OnnxSpeechSeq2Seq.from_pretrained(copy).forward(np.ones((1, 16000), np.float32) * 0.1, labels=[[5, 6]])


@pytest.mark.parametrize("tokens", [{"decoder_start_token_id": 5}, {"decoder_start_token_id": 9, "pad_token_id": 7}])
def test_the_loss_of_labels_starts_as_config_json_says(copy: Path, tokens: dict[str, int], digits: Pair) -> None:
    """transformers trains with config.json, and generates with generation_config.json."""
    edit(copy, "config.json", lambda config: config.update(tokens))
    random = np.random.default_rng(0)
    inputs = random.standard_normal((2, 16000), dtype=np.float32)
    labels = random.integers(3, 32, (2, 6))
    labels[0, 2:4] = labels[1, 4:] = -100
    reference = SpeechEncoderDecoderModel.from_pretrained(CHECKPOINT, **tokens).eval()
    with torch.no_grad():
        expected = reference(torch.from_numpy(inputs), labels=torch.from_numpy(labels))
        usual = digits.reference(torch.from_numpy(inputs), labels=torch.from_numpy(labels)).loss.item()
    found = OnnxSpeechSeq2Seq.from_pretrained(copy).forward(inputs, labels=labels)
    assert found.loss == pytest.approx(expected.loss.item(), abs=1e-4)
    assert abs(found.loss - usual) > 1e-3


@pytest.mark.parametrize("rounding", [None, 2.5e-4])
def test_the_rounding_of_torch_is_written_only_where_it_was_measured(rounding: float | None, tmp_path: Path) -> None:
    """Runtimes of the first release refuse fields that they do not know."""
    bundle = make_bundle(tmp_path / "bundle", verification=replace(VERIFICATION, torch_rounding=rounding))
    written = json.loads((bundle / "bundle.json").read_text())["verification"]
    assert ("torch_rounding" in written) == (rounding is not None)
    assert Bundle.open(bundle).manifest.verification == replace(VERIFICATION, torch_rounding=rounding)
