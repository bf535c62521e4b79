"""Test `python -m speech_runtime BUNDLE`, which describes a bundle without ONNX Runtime."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from handmade_bundle import DECODER, ENCODER, add_engine_set, make_bundle
from speech_runtime.__main__ import main
from speech_runtime.bundle.manifest import Manifest
from speech_runtime.bundle.model_facts import PromptTemplate
from speech_runtime.bundle.safe_files import FileFacts

LANGUAGES = {"en": 5, "english": 5, "<|en|>": 5, "de": 6, "german": 6}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def edit(bundle: Path, name: str, content: str | None) -> Path:
    """Replace or remove a file, and list it as it is."""
    manifest = Manifest.read(bundle)
    del manifest.files[name]
    if content is not None:
        (bundle / name).write_text(content)
        manifest.files[name] = FileFacts.of(bundle / name)
    manifest.write(bundle)
    return bundle


def test_everything_is_said_in_words(tmp_path: Path) -> None:
    result = run(make_bundle(tmp_path / "bundle"))
    assert result.exit_code == 0, result.output
    for line in (
        "source         someone/model",
        "made by        speech-export 0.1.0, torch 2.13.0",
        "precision      fp32, for cpu",
        "encoder        takes input_values: a waveform at 16,000 Hz",
        "shortest 0.025 s (400 samples), longest any length",
        "2 heads of self-attention, a frame every 320 samples",
        "padding is neutral: a clip is encoded alike alone and in a batch",
        "decoder        1 layers, 2 heads of width 16",
        "vocabulary of 5,000, 64 positions",
        "a step takes any number of tokens and returns 8 candidates for each beam",
        "features       Wav2Vec2FeatureExtractor",
        "tokenizer      WordLevel, 3 tokens",
        "generation     max_length 40, num_beams 5, decoder_start_token_id 1, eos_token_id 2",
        "verification   against torch on 4 clips (noise)",
        "largest log-probability difference 1.7e-05",
        "equal tokens: greedy 100.00%, 4 beams 99.50%",
        f"{(tmp_path / 'bundle' / 'encoder.onnx').stat().st_size:,} bytes  encoder.onnx",
    ):
        assert line in result.stdout


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"encoder": replace(ENCODER, max_length=32000)}, "longest 2.000 s (32,000 samples)"),
        ({"encoder": replace(ENCODER, padding_neutral=False)}, "padding changes the encoding of a clip"),
        ({"decoder": replace(DECODER, max_positions=None)}, "any number of positions"),
        ({"decoder": replace(DECODER, max_tokens=1)}, "a step takes at most 1 tokens"),
        ({"verification": None}, "none: this bundle was not compared with its model"),
    ],
)
def test_facts_that_differ_are_said(facts: dict[str, Any], line: str, tmp_path: Path) -> None:
    assert line in run(make_bundle(tmp_path / "bundle", **facts)).stdout


@pytest.mark.parametrize(
    ("prompt", "lines"),
    [
        (
            PromptTemplate(("language", "task"), ("language",), LANGUAGES, {"translate": 9, "transcribe": 8}),
            ["languages      de, en\n", "without one: detected in each clip", "tasks          transcribe, translate\n"],
        ),
        (
            PromptTemplate(("source_language", "language"), None, LANGUAGES, {}, language="en"),
            ["of the text, and of the speech as source_language", "without one: en"],
        ),
        (PromptTemplate(("language",), None, LANGUAGES, {}), ["without one: an error"]),
        (PromptTemplate(("language",), (), LANGUAGES, {}), ["without one: none"]),
    ],
)
def test_languages_and_tasks_are_listed(prompt: PromptTemplate, lines: list[str], tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", prompt=prompt)
    stdout = run(bundle).stdout
    for line in lines:
        assert line in stdout
    facts = json.loads(run(bundle, "--json").stdout)
    assert (facts["languages"], facts["tasks"]) == (["de", "en"], sorted(prompt.tasks))


def test_languages_of_the_tokenizer_are_listed(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    assert "\nlanguages" not in run(bundle).stdout
    assert json.loads(run(bundle, "--json").stdout)["languages"] == []
    vocabulary = {name: i for i, name in enumerate(["en_XX", "zh_CN", "zh_TW", "word"])}
    edit(bundle, "tokenizer.json", Tokenizer(WordLevel(vocabulary, unk_token="word")).to_str())
    assert "languages      en, zh, zh_TW\n" in run(bundle).stdout
    assert "\ntasks" not in run(bundle).stdout


def test_engines_are_described(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    assert "engines        none" in run(bundle).stdout
    add_engine_set(bundle)
    add_engine_set(bundle, directory="tensorrt-0", flavor="tensorrt", version="10.13", compute_capabilities=("8.9",))
    stdout = run(bundle).stdout
    assert (
        "TensorRT-RTX 1.7.1, for compute capability 8.0, 8.6, 8.9, 12.0 and later: up to 8 × 30 s, 5 beams, 256 tokens"
        in stdout
    )
    assert "TensorRT 10.13, for compute capability 8.9: up to" in stdout


def test_an_encoder_of_features_is_described_in_frames(tmp_path: Path) -> None:
    encoder = replace(ENCODER, input_name="input_features", feature_size=80, min_length=7, max_length=3000, stride=4)
    bundle = edit(make_bundle(tmp_path / "bundle", encoder=encoder), "preprocessor_config.json", None)
    bundle = edit(bundle, "tokenizer.json", None)
    stdout = run(bundle).stdout
    for line in (
        "takes input_features: frames of 80 features\n",
        "shortest 7 feature frames, longest 3,000 feature frames",
        "none: the bundle takes model input, not audio",
        "none: the bundle returns token ids",
    ):
        assert line in stdout
    facts = json.loads(run(bundle, "--json").stdout)
    assert facts["input_seconds"] is facts["feature_extractor"] is facts["tokenizer"] is None


def test_json_has_the_manifest_and_more(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    facts = json.loads(run(bundle, "--json").stdout)
    manifest = json.loads((bundle / "bundle.json").read_text())
    assert {name: facts[name] for name in manifest} == manifest
    assert facts["directory"] == str(bundle)
    assert facts["size"] == sum(file["size"] for file in manifest["files"].values())
    assert facts["input_seconds"] == {"shortest": 0.025, "longest": None}
    assert facts["feature_extractor"]["feature_extractor_type"] == "Wav2Vec2FeatureExtractor"
    assert facts["feature_extractor"]["sampling_rate"] == 16000
    assert facts["tokenizer"] == {"model": "WordLevel", "vocab_size": 3}
    expected = {"decoder_start_token_id": 1, "eos_token_id": 2, "num_beams": 5, "max_length": 40}
    assert facts["generation_config"] == expected


def test_a_bad_bundle_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    damaged = make_bundle(tmp_path / "damaged")
    (damaged / "encoder.onnx").unlink()
    tokenizer = edit(make_bundle(tmp_path / "tokenizer"), "tokenizer.json", "{}")
    extractor = edit(make_bundle(tmp_path / "extractor"), "preprocessor_config.json", '{"feature_extractor_type": "X"}')
    settings = edit(make_bundle(tmp_path / "settings"), "generation_config.json", '{"num_beams": 0}')
    for bundle, message in (
        (tmp_path / "nowhere", "there is no directory"),
        (tmp_path, "is not a bundle"),
        (damaged, "encoder.onnx is missing"),
        (tokenizer, "tokenizer.json cannot be read"),
        (extractor, "feature extractor of type X"),
        (settings, "num_beams is 0"),
    ):
        for options in ((), ("--json",)):
            result = run(bundle, *options)
            assert result.exit_code == 1
            assert result.stdout == ""
            assert message in result.stderr
            assert len(result.stderr.splitlines()) == 1


def test_it_needs_no_onnx_runtime(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.modules['onnxruntime'] = None; sys.argv = ['', sys.argv[1]]; "
        "runpy.run_module('speech_runtime', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, make_bundle(tmp_path / "bundle")]
    assert "someone/model" in subprocess.check_output(command, text=True)
    module = subprocess.run([sys.executable, "-m", "speech_runtime"], capture_output=True, text=True, check=False)
    assert "Usage: python -m speech_runtime [OPTIONS] BUNDLE" in module.stderr
