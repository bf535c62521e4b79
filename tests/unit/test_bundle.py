"""Damaged bundles: each problem is named, all of them at once."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from conftest import Pair
from handmade_bundle import VERIFICATION, make_bundle
from speech_runtime import Bundle, BundleError, OnnxSpeechSeq2Seq
from speech_runtime.bundle import FileFacts


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
        (lambda m: m.update(format_version=99), "format version 99, this release reads 2"),
        (lambda m: m.pop("decoder"), "decoder is missing"),
        (lambda m: m["decoder"].update(layers="two"), "decoder.layers is 'two', expected int"),
        (lambda m: m.update(surprise=1), "surprise is not a known field"),
        (lambda m: m["decoder"].update(cache="static"), "cache is 'static' and decoder.cache_length is None, but a"),
        (
            lambda m: m["decoder"].update(cache_length=64),
            "cache_length is 64, but a static cache has a length, and only",
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
    (tmp_path / "bundle.json").write_text("{ truncated")
    with pytest.raises(BundleError, match="cannot be read"):
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


@pytest.mark.parametrize("rounding", [None, 2.5e-4])
def test_the_rounding_of_torch_is_written_only_where_it_was_measured(rounding: float | None, tmp_path: Path) -> None:
    """Runtimes of the first release refuse fields that they do not know."""
    bundle = make_bundle(tmp_path / "bundle", verification=replace(VERIFICATION, torch_rounding=rounding))
    written = json.loads((bundle / "bundle.json").read_text())["verification"]
    assert ("torch_rounding" in written) == (rounding is not None)
    assert Bundle.open(bundle).manifest.verification == replace(VERIFICATION, torch_rounding=rounding)
