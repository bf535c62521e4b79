"""Test stored generation settings: they do not affect the verification, unsupported ones are reported or refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig as TorchConfig
from transformers import PreTrainedTokenizerFast, SpeechEncoderDecoderModel

from composites import EOS, PAD, START, VOCABULARY, composite
from conftest import Pair
from short_audio import short_audio
from speech_export import ExportError
from speech_export.bundle_writer.configuration import write_configuration
from speech_export.bundle_writer.generation_settings import write_settings
from speech_export.sources.composite import Composite
from speech_export.tokenizers.runtime_tokenizer import check_tokenizer
from speech_export.tracing.facts import decoder_facts, encoder_facts
from speech_export.verification.compare import compare
from speech_export.verification.reference import expectations
from speech_runtime import GenerationConfig, OnnxSpeechSeq2Seq
from tiny_checkpoint import Copies, save_tiny, save_tokenizer

TOKENS = {"decoder_start_token_id": START, "eos_token_id": EOS, "pad_token_id": PAD}
HARMLESS: list[dict[str, Any]] = [
    {"do_sample": True, "top_k": 5, "temperature": 3.0},
    {"use_cache": False},
    {"return_dict_in_generate": True, "output_scores": True},
    {"cache_implementation": "static"},
    {"stop_strings": ["w5"]},
    {"max_time": 0.0},
    {"temperature": 0.0},
    {"trained_by": "somebody"},
    {"forced_decoder_ids": [[1, 5]]},
    {"num_beams": 3, "length_penalty": -1.0, "early_stopping": True},
    {"max_length": 300, "min_length": 200},
    {"suppress_tokens": [4, 5], "forced_bos_token_id": 7, "bad_words_ids": [[6]]},
    {"max_matching_ngram_size": 2, "prefill_chunk_size": 4},
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def written(model: SpeechEncoderDecoderModel, directory: Path) -> GenerationConfig:
    """The settings of the bundle to be, as the runtime reads them."""
    facts = encoder_facts(model.encoder), decoder_facts(model, 64)
    write_configuration(Composite(model, None, None, "a test"), *facts, directory)
    return GenerationConfig.from_file(directory / "generation_config.json")


@pytest.mark.parametrize("settings", HARMLESS, ids=lambda settings: next(iter(settings)))
def test_stored_settings_do_not_disturb_the_verification(
    settings: dict[str, Any], pair: Callable[[str], Pair], tiny: Path, tmp_path: Path
) -> None:
    copy = Copies(tiny, tmp_path)({"generation_config.json": settings})
    model = SpeechEncoderDecoderModel.from_pretrained(copy)
    (tmp_path / "bundle").mkdir()
    stored, before = written(model, tmp_path / "bundle"), model.generation_config
    exported = OnnxSpeechSeq2Seq.from_pretrained(pair("bert").directory)
    exported.generation_config = stored
    result = compare(expectations(model, short_audio(exported.manifest.encoder), 6, whole=True), exported)
    assert result.largest < 1e-4
    assert all(same == total > 0 for same, total in result.equal.values())
    assert model.generation_config is before


def test_settings_changed_in_memory_do_not_either(pair: Callable[[str], Pair]) -> None:
    model = composite("bert")
    model.generation_config = TorchConfig(
        **TOKENS, do_sample=True, num_return_sequences=4, return_dict_in_generate=True
    )
    exported = OnnxSpeechSeq2Seq.from_pretrained(pair("bert").directory)
    result = compare(expectations(model, short_audio(exported.manifest.encoder), 6, whole=True), exported)
    assert all(same == total > 0 for same, total in result.equal.values())


@pytest.mark.parametrize("where", [{}, {"decoder": None}, {"encoder": None}])
def test_a_configuration_may_say_that_there_is_no_cache(
    where: dict[str, None], pair: Callable[[str], Pair], tiny: Path, tmp_path: Path
) -> None:
    off = {"use_cache": False, "gradient_checkpointing": True}
    config = dict.fromkeys(where, off) or off
    model = SpeechEncoderDecoderModel.from_pretrained(Copies(tiny, tmp_path)({"config.json": config})).eval()
    exported = OnnxSpeechSeq2Seq.from_pretrained(pair("bert").directory)
    result = compare(expectations(model, short_audio(exported.manifest.encoder), 6, whole=True), exported)
    assert all(same == total > 0 for same, total in result.equal.values())


def test_settings_mean_to_the_runtime_what_they_mean_to_transformers(
    pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    model = composite("bert")
    settings = {"num_beams": 3, "length_penalty": -1.0, "suppress_tokens": [9, 11], "max_new_tokens": 7}
    model.generation_config = TorchConfig(**TOKENS, **settings, temperature=0.0)
    exported = OnnxSpeechSeq2Seq.from_pretrained(pair("bert").directory)
    exported.generation_config = written(model, tmp_path)
    audio = np.random.default_rng(3).standard_normal((2, 900)).astype(np.float32)
    expected = model.generate(torch.from_numpy(audio))
    np.testing.assert_array_equal(exported.generate(audio), expected)


def test_what_the_runtime_does_not_follow_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TorchConfig(**TOKENS, temperature=0.0, top_p=2.0)
    config.trained_by = "somebody"
    write_settings(config, decoder_facts(composite("bert"), top_k=4), tmp_path / "generation_config.json")
    assert "left out: temperature (0.0), top_p (2.0), trained_by ('somebody')" in caplog.text
    assert set(json.loads((tmp_path / "generation_config.json").read_text())) == {
        *TOKENS,
        "max_length",
        "transformers_version",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_sample": True, "temperature": 0.0}, "temperature is 0.0; give 1e-30 to"),
        ({"penalty_alpha": 0.6}, "penalty_alpha is for contrastive search"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"length_penalty": "x"}, "length_penalty is 'x'"),
        ({"eos_token_id": "2"}, "eos_token_id is '2'"),
        ({"eos_token_id": 99}, "eos_token_id has 99, but the decoder's tokens are 0 … 89"),
        ({"eos_token_id": [2, 90]}, "eos_token_id has 90"),
        ({"decoder_start_token_id": -5}, "decoder_start_token_id has -5"),
        ({"forced_bos_token_id": -1}, "forced_bos_token_id has -1"),
        ({"forced_eos_token_id": 90}, "forced_eos_token_id has 90"),
        ({"pad_token_id": -2}, "pad_token_id has -2"),
        ({"decoder_start_token_id": None, "bos_token_id": 90}, "bos_token_id has 90"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused_before_tracing(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model = composite("bert")
    model.generation_config = TorchConfig(**TOKENS | settings)
    with pytest.raises(ExportError, match=message):
        written(model, tmp_path)


def test_another_models_tokenizer_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tokenizer(tmp_path, VOCABULARY + 7)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    with pytest.raises(ExportError, match=r"7 words beyond the 90 of the model: '▁w90' \(90\).*--processor"):
        check_tokenizer(tokenizer, VOCABULARY)
    check_tokenizer(tokenizer, VOCABULARY + 7)
    assert not caplog.text
    tokenizer.add_special_tokens({"additional_special_tokens": ["<pad2>"]})
    check_tokenizer(tokenizer, VOCABULARY + 7)
    assert "'<pad2>' (97)" in caplog.text


def stored_length(directory: Path) -> int:
    return json.loads((directory / "generation_config.json").read_text())["max_length"]


def test_without_a_maximal_length_texts_have_all_positions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = composite("bert")
    facts = encoder_facts(model.encoder), decoder_facts(model, top_k=4)
    positions = facts[1].longest
    write_configuration(Composite(model, None, None, "mine"), *facts, tmp_path)
    assert f"mine sets no max_length: a text may have up to {positions} tokens" in caplog.text
    assert caplog.text.count("max_length") == 1
    assert stored_length(tmp_path) == positions
    caplog.clear()
    weights = tuple(name for name, _ in model.named_parameters())
    write_configuration(Composite(model, None, None, "a pair", weights[:1]), *facts, tmp_path)
    assert caplog.text.count("max_length") == 1
    caplog.clear()
    write_configuration(Composite(model, None, None, "configurations", weights), *facts, tmp_path)
    assert stored_length(tmp_path) == positions
    write_configuration(Composite(model, None, None, "mine"), *facts, tmp_path, max_length=15)
    assert stored_length(tmp_path) == 15
    model.generation_config.max_new_tokens = 30
    write_configuration(Composite(model, None, None, "mine"), *facts, tmp_path)
    assert "max_length" not in json.loads((tmp_path / "generation_config.json").read_text())
    write_configuration(Composite(model, None, None, "mine"), *facts, tmp_path, max_length=15)
    assert json.loads((tmp_path / "generation_config.json").read_text()).keys() >= {"max_length"}
    assert "max_new_tokens" not in json.loads((tmp_path / "generation_config.json").read_text())
    assert "max_length" not in caplog.text


def test_a_decoder_without_positions_gets_a_maximal_length_too(tmp_path: Path) -> None:
    facts = replace(decoder_facts(composite("bert"), top_k=4), max_positions=None)
    write_settings(TorchConfig(), facts, tmp_path / "generation_config.json")
    assert stored_length(tmp_path) == 1024


@pytest.mark.parametrize(("length", "message"), [(1, "give 2 tokens or more"), (10**6, "the decoder has 64 positions")])
def test_a_maximal_length_must_fit(length: int, message: str, tmp_path: Path) -> None:
    facts = replace(decoder_facts(composite("bert"), top_k=4), max_positions=64)
    with pytest.raises(ExportError, match=message):
        write_settings(TorchConfig(), facts, tmp_path / "generation_config.json", length)
