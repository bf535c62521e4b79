"""What transformers' page on `SpeechEncoderDecoderModel` shows works as it stands, and what it makes is exported.

Its examples are read from the docstrings of the installed release. They name models of the Hub; tiny ones are saved in
directories of the same names, which transformers prefers. Sections that are in no docstring are written out.
"""

import doctest
import importlib.machinery
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import soundfile
import torch
import transformers
from click.testing import CliRunner
from transformers import (
    AutoFeatureExtractor,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizer,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

from composites import DECODERS, ENCODERS, VOCABULARY, composite, encoder_model
from conftest import CLIPS
from speech_export import ExportError, export
from speech_export.cli.export import main
from speech_runtime import OnnxSpeechSeq2Seq

pytestmark = pytest.mark.usefixtures("short_verification", "traced_once")

WAV2VEC2, HUBERT, BERT = "facebook/wav2vec2-base-960h", "facebook/hubert-large-ll60k", "google-bert/bert-base-uncased"
FINE_TUNED = "facebook/wav2vec2-xls-r-300m-en-to-15"
CLIP = CLIPS / "02-espeak-us.wav"


def bert() -> BertConfig:
    """A configuration with the token ids of BERT's: a padding token and no others."""
    config: BertConfig = DECODERS["bert"]()
    config.bos_token_id, config.eos_token_id, config.pad_token_id = None, None, 0
    return config


def tokenizer() -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(5, VOCABULARY))]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with the models that the page names, its data set, and small default configurations."""
    monkeypatch.chdir(tmp_path)
    extractor = Wav2Vec2FeatureExtractor()
    for name, family in ((WAV2VEC2, "wav2vec2"), (HUBERT, "hubert")):
        encoder_model(family).save_pretrained(name)
        extractor.save_pretrained(name)
    BertModel(bert()).save_pretrained(BERT)
    tokenizer().save_pretrained(BERT)
    fine_tuned = composite("bert")
    fine_tuned.config.decoder_start_token_id, fine_tuned.config.pad_token_id = 2, 0
    fine_tuned.save_pretrained(FINE_TUNED)
    Wav2Vec2Processor(extractor, tokenizer()).save_pretrained(FINE_TUNED)
    rows = [{"audio": {"array": soundfile.read(CLIP)[0], "sampling_rate": 16000}, "text": "w7 w8 w9"}]
    datasets = ModuleType("datasets")
    datasets.__spec__ = importlib.machinery.ModuleSpec("datasets", None)
    datasets.load_dataset = lambda *_, **__: rows  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    monkeypatch.setattr(transformers, "Wav2Vec2Config", ENCODERS["wav2vec2"])
    monkeypatch.setattr(transformers, "BertConfig", bert)
    torch.manual_seed(0)  # of the weights that examples make


def run_example(documented: Callable[..., Any]) -> dict[str, Any]:
    """Run the example in a docstring line by line, and return its names."""
    names: dict[str, Any] = {}
    lines = doctest.DocTestParser().get_examples(inspect.getdoc(documented) or "")
    assert lines
    for line in lines:
        exec(line.source, names)  # noqa: S102 - of an installed package
    return names


def speech_export(*arguments: str) -> None:
    result = CliRunner().invoke(main, [*arguments, "-o", "bundle"])
    assert result.exit_code == 0, result.output


def check_tokens(model: SpeechEncoderDecoderModel, **settings: Any) -> None:
    """Compare the tokens of the bundle with those of `model`."""
    inputs = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    wanted = model.eval().generate(inputs, max_new_tokens=9, **settings)
    found = OnnxSpeechSeq2Seq.from_pretrained("bundle").generate(inputs.numpy(), max_new_tokens=9)
    assert found.tolist() == wanted.tolist()


def check_text(model: SpeechEncoderDecoderModel, **settings: Any) -> None:
    """Compare the bundle's text of a clip with that of `model`."""
    samples = soundfile.read(CLIP)[0]
    inputs = AutoFeatureExtractor.from_pretrained(WAV2VEC2)(samples, sampling_rate=16000, return_tensors="pt")
    wanted = tokenizer().decode(model.eval().generate(**inputs, max_new_tokens=9, **settings)[0], True)
    exported = OnnxSpeechSeq2Seq.from_pretrained("bundle")
    assert exported.transcribe(CLIP, max_new_tokens=9) == wanted != ""


def test_two_configurations() -> None:
    names = run_example(SpeechEncoderDecoderConfig)
    without = ("--without", "feature-extractor", "--without", "tokenizer")
    speech_export("my-model", *without, "--decoder-start-token-id", "2")
    check_tokens(names["model"], decoder_start_token_id=2)


def test_a_model_of_two_configurations_in_memory() -> None:
    halves = transformers.Wav2Vec2Config(), transformers.BertConfig()
    model = SpeechEncoderDecoderModel(config=SpeechEncoderDecoderConfig.from_encoder_decoder_configs(*halves))
    with pytest.raises(ExportError, match=r"in Python: model.generation_config.decoder_start_token_id = "):
        export(model, "bundle")
    model.generation_config.decoder_start_token_id = 2
    export(model, "bundle")
    check_tokens(model)


def test_two_checkpoints() -> None:
    model = run_example(SpeechEncoderDecoderModel.from_encoder_decoder_pretrained)["model"]
    parts = {
        "feature_extractor": AutoFeatureExtractor.from_pretrained(WAV2VEC2),
        "tokenizer": AutoTokenizer.from_pretrained(BERT),
    }
    export(model, "bundle", **parts)
    assert model.generation_config.decoder_start_token_id is None  # as it was
    check_text(model, decoder_start_token_id=2, eos_token_id=3)


def test_a_fine_tuned_checkpoint() -> None:
    names = run_example(SpeechEncoderDecoderModel.forward)
    assert names["loss"].item() > 0
    speech_export(FINE_TUNED)
    row = names["ds"][0]["audio"]
    assert OnnxSpeechSeq2Seq.from_pretrained("bundle").transcribe(row, max_new_tokens=20) == names["decoded"] != ""
    check_text(names["model"])


@pytest.mark.parametrize("encoder_id", [WAV2VEC2, pytest.param(HUBERT, marks=pytest.mark.full)])
def test_training(encoder_id: str) -> None:
    """The section on training, and then the same model from memory and from its directory."""
    feature_extractor = AutoFeatureExtractor.from_pretrained(encoder_id)
    tokenizer = AutoTokenizer.from_pretrained(BERT)
    model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(encoder_id, BERT)
    model.config.decoder_start_token_id = tokenizer.cls_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    (row,) = sys.modules["datasets"].load_dataset()
    input_values = feature_extractor(row["audio"]["array"], sampling_rate=16000, return_tensors="pt").input_values
    loss = model(input_values=input_values, labels=tokenizer(row["text"], return_tensors="pt").input_ids).loss
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * (parameter.grad if parameter.grad is not None else 0)

    export(model, "bundle", feature_extractor=feature_extractor, tokenizer=tokenizer)
    check_text(model, decoder_start_token_id=2, eos_token_id=3)
    for part in (model, feature_extractor, tokenizer):
        part.save_pretrained("fine-tuned")
    speech_export("fine-tuned", "--overwrite")
    check_text(model, decoder_start_token_id=2, eos_token_id=3)


@pytest.mark.full
def test_default_configurations_by_name() -> None:
    configurations = ("--encoder-config", '{"model_type":"wav2vec2"}', "--decoder-config", '{"model_type":"bert"}')
    speech_export(*configurations, "--random-weights")
    facts = OnnxSpeechSeq2Seq.from_pretrained("bundle").manifest
    assert (facts.encoder.heads, facts.decoder.layers, facts.decoder.vocab_size) == (12, 12, 30522)
