"""Test language adapters of MMS: the chosen one is loaded, as transformers does for a CTC model, and never another."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SpeechEncoderDecoderModel, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

from composites import ENCODERS, composite
from speech_export import ExportError, HubOptions, load_checkpoint, load_pair
from speech_export.sources import language_adapters
from tiny_checkpoint import Copies, save_tiny, save_tokenizer

LANGUAGES = ("deu", "azj-script_latin")


def adapter_of(model: Wav2Vec2ForCTC) -> dict[str, torch.Tensor]:
    """The weights of a language, as those of facebook/mms-1b-all: adapter layers, and a head for its alphabet."""
    own = {name: tensor for name, tensor in model.state_dict().items() if "adapter_layer" in name or "lm_head" in name}
    return {name: torch.randn_like(tensor) for name, tensor in own.items()}


@pytest.fixture(scope="module")
def mms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CTC checkpoint with two languages beside the one that is stored with it."""
    directory = tmp_path_factory.mktemp("mms")
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(ENCODERS["wav2vec2, MMS"]())
    model.save_pretrained(directory)
    for language in LANGUAGES:
        save_file(adapter_of(model), directory / f"adapter.{language}.safetensors", {"format": "pt"})
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("decoder")
    composite("bert").decoder.save_pretrained(directory)
    save_tokenizer(directory)
    return directory


@pytest.fixture
def copies(mms: Path, tmp_path: Path) -> Copies:
    return Copies(mms, tmp_path)


@torch.no_grad()
def hidden_states(encoder: torch.nn.Module) -> torch.Tensor:
    found: torch.Tensor = encoder(torch.randn(2, 900, generator=torch.Generator().manual_seed(0))).last_hidden_state
    return found


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_the_language_is_that_of_transformers(language: str, form: str, decoder: Path, copies: Copies) -> None:
    copy = copies()
    if form == "bin":
        file = copy / f"adapter.{language}.safetensors"
        torch.save(load_file(file), file.with_suffix(".bin"))
        file.unlink()
    ctc = Wav2Vec2ForCTC.from_pretrained(copy, target_lang=language, ignore_mismatched_sizes=True).eval()
    found = load_pair(str(copy), str(decoder), target_lang=language)
    assert found.source == f"{copy} + {decoder}, language {language}"
    torch.testing.assert_close(hidden_states(found.model.encoder), hidden_states(ctc.wav2vec2), atol=0, rtol=0)
    stored = Wav2Vec2ForCTC.from_pretrained(copy).eval()
    assert (hidden_states(ctc.wav2vec2) - hidden_states(stored.wav2vec2)).abs().max() > 0.01


def test_a_composite_has_its_languages_beside_it(mms: Path, tmp_path: Path) -> None:
    whole = save_tiny(tmp_path / "whole", encoder="wav2vec2, MMS")
    shutil.copy(mms / "adapter.deu.safetensors", whole)
    found = load_checkpoint(str(whole), target_lang="deu").model
    stored = SpeechEncoderDecoderModel.from_pretrained(whole).state_dict()
    german = {
        name.replace("wav2vec2.", "encoder."): tensor
        for name, tensor in load_file(mms / "adapter.deu.safetensors").items()
        if "lm_head" not in name
    }
    torch.testing.assert_close(found.state_dict(), stored | german, atol=0, rtol=0)


def test_without_a_language_the_choice_is_told(mms: Path, decoder: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = load_pair(str(mms), str(decoder)).model.encoder
    assert "--target-lang (target_lang) chooses one of its adapters: azj-script_latin, deu." in caplog.text
    stored = Wav2Vec2ForCTC.from_pretrained(mms).eval().wav2vec2
    torch.testing.assert_close(hidden_states(found), hidden_states(stored), atol=0, rtol=0)


@pytest.mark.parametrize("language", ["fra", "", "../deu", "deu.safetensors"])
def test_languages_that_there_are_are_named(language: str, mms: Path, decoder: Path) -> None:
    with pytest.raises(ExportError, match=f"{mms} has no adapter of that language; it has azj-script_latin, deu"):
        load_pair(str(mms), str(decoder), target_lang=language)


def test_an_encoder_without_languages_says_so(tmp_path: Path) -> None:
    plain = save_tiny(tmp_path / "plain")
    with pytest.raises(ExportError, match="--target-lang deu: .*plain has no language adapters"):
        load_checkpoint(str(plain), target_lang="deu")
    none = save_tiny(tmp_path / "none", encoder="wav2vec2, MMS")
    with pytest.raises(ExportError, match=r"it has none \(adapter.LANGUAGE.safetensors\)"):
        load_checkpoint(str(none), target_lang="deu")


def test_a_language_that_does_not_fit_is_refused(decoder: Path, copies: Copies) -> None:
    copy = copies()
    file = copy / "adapter.deu.safetensors"
    whole = load_file(file)
    name = "encoder.layers.1.adapter_layer.norm.bias"
    faults = {
        "missing": {key: tensor for key, tensor in whole.items() if not key.endswith(name)},
        "narrow": {**whole, f"wav2vec2.{name}": torch.ones(3)},
        "more": {**whole, "wav2vec2.encoder.layers.7.adapter_layer.norm.bias": torch.ones(3)},
    }
    for fault, weights in faults.items():
        save_file(weights, file, {"format": "pt"})
        said = name.replace("1", "7") if fault == "more" else name
        with pytest.raises(
            ExportError, match=f"the language deu of {copy} does not fit the encoder: 1 weights .*{said}"
        ):
            load_pair(str(copy), str(decoder), target_lang="deu")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ExportError, match=f"the language deu of {copy}: adapter.deu.safetensors is damaged"):
        load_pair(str(copy), str(decoder), target_lang="deu")


def test_languages_on_the_hub_are_listed(mms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def __init__(self, token: str | None) -> None:
            assert token == "hf_secret"  # noqa: S105

        def list_repo_files(self, name: str, revision: str | None) -> list[str]:
            assert (name, revision) == ("someone/mms", "v2")
            return ["config.json", "adapter.fra.bin", "adapter.fra.safetensors", "adapter.eng.safetensors"]

    monkeypatch.setattr(language_adapters, "HfApi", Client)
    monkeypatch.setattr(language_adapters, "find_file", lambda *_: None)
    encoder = Wav2Vec2ForCTC.from_pretrained(mms).wav2vec2
    with pytest.raises(ExportError, match="it has eng, fra$"):
        language_adapters.choose_language(encoder, "someone/mms", "deu", HubOptions("v2", "hf_secret"))
