"""Test every source of a model: whole checkpoints, pairs, sharded and pickled weights, the Hub, configurations."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BertConfig,
    EncodecConfig,
    EncodecFeatureExtractor,
    GenerationConfig,
    HubertConfig,
    LlamaConfig,
    OPTConfig,
    ParakeetCTCConfig,
    ParakeetEncoderConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    SeamlessM4TFeatureExtractor,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    SpeechT5HifiGanConfig,
    T5Config,
    ViTConfig,
    VoxtralConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

from adapters import save_adapter
from composites import DECODERS, ENCODERS, composite, encoder_model
from conftest import CHECKPOINT, REPOSITORY
from speech_export import ExportError, export
from speech_export.cli.export import main
from speech_export.sources.checkpoint import load_checkpoint
from speech_export.sources.configs import load_configs, read_config
from speech_export.sources.hub import HubOptions, load
from speech_export.sources.pair import load_pair
from speech_runtime import BundleError, OnnxSpeechSeq2Seq
from tiny_checkpoint import Copies, save_tokenizer

pytestmark = pytest.mark.usefixtures("short_verification", "traced_once")

TINY_OPT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 90, "ffn_dim": 40}
TINY_OPT |= {"word_embed_proj_dim": 32, "max_position_embeddings": 64}
CLIP = REPOSITORY / "examples" / "digits" / "audio" / "01-flite-slt.wav"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def save_encoder(family: str, directory: Path) -> Path:
    encoder_model(family).save_pretrained(directory)
    known = {"wav2vec2-bert": SeamlessM4TFeatureExtractor()}
    extractor = known.get(family.partition(",")[0], Wav2Vec2FeatureExtractor(return_attention_mask=True))
    extractor.save_pretrained(directory)
    return directory


def save_decoder(family: str, directory: Path, cross_attention: bool = False) -> Path:
    config = DECODERS[family]()
    config.is_decoder = config.add_cross_attention = cross_attention
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoints of a Wav2Vec2 encoder and of a BERT that was no decoder before."""
    encoder, decoder = tmp_path_factory.mktemp("encoder"), tmp_path_factory.mktemp("decoder")
    return save_encoder("wav2vec2", encoder), save_decoder("bert", decoder)


def test_a_pair_is_joined_and_its_random_weights_named(halves: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("--encoder", halves[0], "--decoder", halves[1], "-o", tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    composite = load_pair(str(halves[0]), str(halves[1]))
    crossed = [name for name, _ in composite.model.decoder.named_parameters() if "crossattention" in name]
    expected = {f"decoder.{name}" for name in crossed} | {"enc_to_dec_proj.weight", "enc_to_dec_proj.bias"}
    assert set(composite.random_weights) == expected
    assert f"{len(expected)} tensors (" in result.stderr
    assert "must be fine-tuned" in result.stderr.replace("\n", " ")
    model = OnnxSpeechSeq2Seq.from_pretrained(tmp_path / "bundle")
    assert (model.generation_config.start_token_ids(1), model.generation_config.eos_token_ids) == ((1,), (2,))


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        ("wav2vec2-bert, relative_key", "bart"),
        pytest.param("hubert", "gpt2", marks=pytest.mark.full),
        pytest.param("sew", "roberta", marks=pytest.mark.full),
    ],
)
def test_two_commands_take_a_pair_from_checkpoints_to_text(encoder: str, decoder: str, tmp_path: Path) -> None:
    commands, bundle = Path(sys.executable).parent, tmp_path / "bundle"
    encoder_path, decoder_path = save_encoder(encoder, tmp_path / "e"), save_decoder(decoder, tmp_path / "d")
    exporting = [commands / "speech-export", "--encoder", encoder_path, "--decoder", decoder_path, "-o", bundle]
    assert "greedy 100.00%, 4 beams 100.00%" in subprocess.check_output(exporting, text=True)
    heard = subprocess.check_output([commands / "speech-transcribe", bundle, CLIP, "--num-beams", "4"], text=True)
    assert len(heard.splitlines()) == 1


def test_a_bundle_without_a_known_extractor_takes_features(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = composite("gpt2", "speech_to_text")
    bundle = export(model, tmp_path / "bundle", feature_extractor=EncodecFeatureExtractor())
    assert "The runtime does not know EncodecFeatureExtractor" in caplog.text
    assert not bundle.has("preprocessor_config.json")
    exported, features = OnnxSpeechSeq2Seq.from_pretrained(bundle.directory), torch.randn(2, 61, 80)
    expected = model.generate(
        features, attention_mask=torch.ones(2, 61, dtype=torch.int64), num_beams=3, max_new_tokens=9
    )
    np.testing.assert_array_equal(exported.generate(features, num_beams=3, max_new_tokens=9), expected)
    with pytest.raises(BundleError, match="only generate"):
        exported.transcribe(CLIP)


def test_cross_attention_that_a_checkpoint_has_is_kept(halves: tuple[Path, Path], tmp_path: Path) -> None:
    decoder = save_decoder("bert", tmp_path, cross_attention=True)
    joined = load_pair(str(halves[0]), str(decoder))
    assert set(joined.random_weights) == {"enc_to_dec_proj.weight", "enc_to_dec_proj.bias"}
    kept = AutoModelForCausalLM.from_pretrained(decoder).state_dict()
    torch.testing.assert_close(joined.model.decoder.state_dict(), kept, atol=0, rtol=0)


def test_weights_that_an_encoder_lacks_are_random_too(halves: tuple[Path, Path], tmp_path: Path) -> None:
    name = "encoder.layers.1.attention.q_proj.weight"
    fewer = Copies(halves[0], tmp_path)(weights=lambda weights: {k: v for k, v in weights.items() if k != name})
    composite = load_pair(str(fewer), str(halves[1]))
    assert f"encoder.{name}" in composite.random_weights
    assert set(composite.random_weights) <= composite.model.state_dict().keys()


@pytest.mark.parametrize("form", ["sharded", "pickled"])
def test_weights_in_any_form_are_the_same(form: str, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    (checkpoint / "model.safetensors").unlink()
    model = SpeechEncoderDecoderModel.from_pretrained(CHECKPOINT)
    if form == "sharded":
        model.save_pretrained(checkpoint, max_shard_size="1MB")
        assert len(list(checkpoint.glob("*.safetensors"))) > 2
    else:
        torch.save(model.state_dict(), checkpoint / "pytorch_model.bin")
    loaded = load_checkpoint(str(checkpoint)).model.state_dict()
    torch.testing.assert_close(loaded, model.state_dict(), atol=0, rtol=0)


def test_a_pickle_with_more_than_weights_is_not_loaded(tmp_path: Path) -> None:
    class Surprise:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
            return Path.touch, (tmp_path / "touched",)

    checkpoint = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    (checkpoint / "model.safetensors").unlink()
    torch.save({"encoder": Surprise()}, checkpoint / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(ExportError, match="the pickled file holds more than tensors"):
        load_checkpoint(str(checkpoint))
    assert not (tmp_path / "touched").exists()


def test_a_revision_is_found_in_a_cache_of_ones_own(tmp_path: Path) -> None:
    repository = tmp_path / "models--someone--digits"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v2").write_text("1" * 40)
    shutil.copytree(CHECKPOINT, repository / "snapshots" / ("1" * 40))
    hub = HubOptions(revision="v2", cache_dir=str(tmp_path), offline=True)
    assert load_checkpoint("someone/digits", hub=hub).source == "someone/digits"
    with pytest.raises(ExportError, match="could not be loaded from the Hub"):
        load_checkpoint("someone/digits", hub=HubOptions(cache_dir=str(tmp_path), offline=True))


def test_without_a_network_the_hub_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def no_network(url: str, token: str | None) -> None:
        asked.append(url)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", no_network)
    hub = HubOptions(cache_dir=str(tmp_path))
    loaders: list[Callable[[], object]] = [
        lambda: load_checkpoint("someone/digits", hub=hub),
        lambda: load_pair("someone/digits", "someone/else", hub=hub),
        lambda: load_configs("someone/digits", "someone/else", hub=hub),
    ]
    for loader in loaders:
        with pytest.raises(ExportError, match=r"cannot be reached \(Name or service not known\).*--offline"):
            loader()
    assert len(asked) == len(loaders)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            Wav2Vec2Config(architectures=["Wav2Vec2ForCTC"]),
            r"wav2vec2 model \(Wav2Vec2ForCTC\), .*a CTC model has no decoder, and optimum-cli .*it with --encoder",
        ),
        (
            ParakeetCTCConfig(architectures=["ParakeetForCTC"]),
            "a CTC model has no decoder, .*a speech encoder, such as",
        ),
        (HubertConfig(), "it has no decoder; name it with --encoder and a text model, such as BERT, with --decoder"),
        (
            VoxtralConfig(),
            "voxtral cannot be exported: it has no cross-attention: its decoder is .* --list-families names those",
        ),
        (
            BertConfig(architectures=["BertForMaskedLM"]),
            r"bert model \(BertForMaskedLM\), .*: it reads text, and has no encoder of speech; name it with --decoder",
        ),
        (BartConfig(), "it reads text, and has no encoder of speech; name it with --decoder"),
        (LlamaConfig(), "llama model .*: transformers has no decoder of it with cross-attention, .*--decoder"),
        (T5Config(), "t5 model .*: transformers has no decoder of it with cross-attention"),
        (ViTConfig(), "vit model .*: it takes pixel_values, which are no audio; name a speech encoder, .*Whisper"),
        (EncodecConfig(), "encodec model .*: transformers has no decoder for it, and cannot make it the encoder of a"),
        (SpeechT5HifiGanConfig(), "it takes no audio; name a speech encoder, such as Wav2Vec2, with --encoder"),
    ],
    ids=lambda value: value.model_type if isinstance(value, PretrainedConfig) else "",
)
def test_other_models_are_told_who_takes_them(config: PretrainedConfig, message: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(ExportError, match=message):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize("load", [load_checkpoint, lambda name: load_pair(name, str(CHECKPOINT)), read_config])
def test_an_unknown_architecture_is_named(load: Callable[[str], object], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "canary9", "architectures": ["Canary9ForASR"]}')
    known = r"is a canary9 model \(Canary9ForASR\), which transformers .* does not know; install a release"
    with pytest.raises(ExportError, match=known):
        load(str(tmp_path))


def test_a_speech_encoder_is_no_decoder() -> None:
    config = '{"model_type": "wav2vec2", "num_hidden_layers": 1}'
    with pytest.raises(ExportError, match="wav2vec2 cannot be a decoder: .* speech-export --list-families names"):
        load_configs(config, config)


def test_the_hub_is_asked_as_told() -> None:
    asked: dict[str, object] = {}

    class Client:
        @staticmethod
        def from_pretrained(name: str, **keywords: object) -> str:
            asked.update(keywords, name=name)
            return "loaded"

    assert load(Client, "someone/digits", "a model", HubOptions("v2", "hf_secret", "/cache", offline=True)) == "loaded"
    assert asked == {
        "name": "someone/digits",
        "revision": "v2",
        "token": "hf_secret",
        "cache_dir": "/cache",
        "local_files_only": True,
        "trust_remote_code": False,
    }


def test_configurations_alone_are_exported_with_random_weights(tmp_path: Path) -> None:
    encoder, decoder = (json.dumps(config.to_diff_dict()) for config in (ENCODERS["hubert"](), DECODERS["bart"]()))
    (tmp_path / "decoder.json").write_text(decoder)
    result = run(
        *("--encoder-config", encoder, "--decoder-config", tmp_path / "decoder.json"),
        *("--random-weights", "--seed", 7, "-o", tmp_path / "bundle"),
    )
    assert result.exit_code == 0, result.output
    assert "parameters are random: this model measures time" in result.stderr
    model = OnnxSpeechSeq2Seq.from_pretrained(tmp_path / "bundle")
    assert model.manifest.source == "hubert + bart, random weights, seed 7"
    tokens = model.generate(np.random.default_rng(0).standard_normal((1, 900)).astype(np.float32), max_new_tokens=3)
    assert tokens.shape == (1, 4)


def test_a_flax_checkpoint_without_its_processor_is_exported(tmp_path: Path) -> None:
    checkpoint = REPOSITORY / "tests" / "data" / "flax" / "bert"
    without = ("--without", "feature-extractor", "--without", "tokenizer")
    assert "a feature extractor (preprocessor_config.json)" in run(checkpoint, "-o", tmp_path / "bundle").stderr
    result = run(checkpoint, *without, "-o", tmp_path / "bundle", "--tolerance", "1e-3")  # wide random weights
    assert result.exit_code == 0, result.output
    with np.load(checkpoint / "oracle.npz") as oracle:
        inputs, expected = oracle["input_values"], oracle["greedy"]
    found = OnnxSpeechSeq2Seq.from_pretrained(tmp_path / "bundle").generate(inputs, max_length=expected.shape[1])
    np.testing.assert_array_equal(found, expected)


def save_bert_tokenizer(directory: Path) -> None:
    """A tokenizer with [CLS] and [SEP] in place of start and end tokens, as BERT's."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3} | {f"w{i}": i for i in range(4, 90)}
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(directory)


def without_token_ids(config: PretrainedConfig) -> PretrainedConfig:
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    return config


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose files name no start and no end token, as those on the Hub."""
    directory = tmp_path_factory.mktemp("bert")
    AutoModelForCausalLM.from_config(without_token_ids(DECODERS["bert"]())).save_pretrained(directory)
    save_bert_tokenizer(directory)
    return directory


def token_ids(model: SpeechEncoderDecoderModel) -> tuple[int | None, ...]:
    config = model.generation_config
    return config.decoder_start_token_id, config.eos_token_id, config.pad_token_id


def test_a_pair_with_bert_takes_the_tokens_of_its_tokenizer(
    halves: tuple[Path, Path], bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert token_ids(load_pair(str(halves[0]), str(bert)).model) == (2, 3, 0)
    for setting in ("decoder_start_token_id 2 (the tokenizer's [CLS])", "eos_token_id 3 (the tokenizer's [SEP])"):
        assert setting in caplog.text
    caplog.clear()
    given = {"decoder_start_token_id": 5, "eos_token_id": 6, "pad_token_id": 7}
    assert token_ids(load_pair(str(halves[0]), str(bert), **given).model) == (5, 6, 7)
    assert not caplog.text
    alone = ("--encoder", halves[0], "--decoder", bert, "--without", "tokenizer", "-o", tmp_path / "bundle")
    refused = run(*alone)
    assert "decoder_start_token_id is not set" in refused.stderr
    assert "give --decoder-start-token-id ID" in refused.stderr
    assert "generation_config.json" in refused.stderr
    result = run(*alone, "--decoder-start-token-id", 5, "--audio", tmp_path / "nofile.wav")
    assert "nofile.wav" in result.stderr  # which is read when the settings are accepted


def test_a_pair_takes_its_processor_from_elsewhere(halves: tuple[Path, Path], tmp_path: Path) -> None:
    encoder, decoder, processor = tmp_path / "encoder", tmp_path / "decoder", tmp_path / "processor"
    shutil.copytree(halves[0], encoder, ignore=shutil.ignore_patterns("preprocessor_config.json"))
    AutoModelForCausalLM.from_config(DECODERS["bert"]()).save_pretrained(decoder)
    with pytest.raises(ExportError, match=r"a directory with both feature extractor and tokenizer"):
        load_pair(str(encoder), str(decoder))
    save_bert_tokenizer(processor)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(processor)
    pair = load_pair(str(encoder), str(decoder), processor=str(processor))
    assert pair.tokenizer.cls_token_id == 2
    assert pair.feature_extractor is not None


@pytest.mark.parametrize("in_config", [False, True])
def test_a_checkpoint_without_a_start_token_gets_one_and_says_so(
    in_config: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, decoder = ENCODERS["wav2vec2"](), without_token_ids(DECODERS["bert"]())
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = SpeechEncoderDecoderModel(config)
    model.generation_config = GenerationConfig(max_length=30)
    if in_config:  # as transformers' documentation sets them
        model.config.decoder_start_token_id, model.config.eos_token_id, model.config.pad_token_id = 8, 9, 0
    model.save_pretrained(tmp_path)
    save_bert_tokenizer(tmp_path)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path)
    assert token_ids(load_checkpoint(str(tmp_path)).model) == ((8, 9, 0) if in_config else (2, 3, 0))
    assert ("does not set all special tokens" in caplog.text) is not in_config
    assert token_ids(load_checkpoint(str(tmp_path), eos_token_id=40).model)[1] == 40


def test_a_start_token_that_is_given_replaces_the_stored_one() -> None:
    assert token_ids(load_checkpoint(str(CHECKPOINT)).model) == (0, 2, 1)
    assert token_ids(load_checkpoint(str(CHECKPOINT), decoder_start_token_id=5).model) == (5, 2, 1)


def test_configurations_without_a_start_token_begin_with_token_0(caplog: pytest.LogCaptureFixture) -> None:
    configs = ['{"model_type": "wav2vec2", "num_hidden_layers": 1}', '{"model_type": "bert", "num_hidden_layers": 1}']
    assert token_ids(load_configs(*configs).model) == (0, None, 0)
    assert "it is set to 0. --decoder-start-token-id changes it" in caplog.text
    assert token_ids(load_configs(*configs, decoder_start_token_id=4, eos_token_id=5).model) == (4, 5, 0)


def test_a_seed_makes_the_same_weights_again() -> None:
    configs = ['{"model_type": "wav2vec2", "num_hidden_layers": 1}', '{"model_type": "bert", "num_hidden_layers": 1}']
    first, again, other = (load_configs(*configs, seed=seed).model.state_dict() for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    weight = "encoder.encoder.layers.0.attention.k_proj.weight"
    assert not torch.equal(first[weight], other[weight])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"hidden_size": 3}', "it has no model_type"),
        ('{"model_type": "hubert",', "cannot be read: Expecting property name"),
        ('{"model_type": "nonsense"}', "is not a configuration of transformers"),
        ("/nowhere/config.json", "/nowhere/config.json: there is no such file or directory"),
        ('{"model_type": "hubert", "hidden_size": 30}', "no composite can be made of hubert and bert"),
    ],
)
def test_bad_configurations_are_named(config: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        load_configs(config, '{"model_type": "bert"}')


def test_a_model_in_memory_is_exported_with_its_processor(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer)
    with pytest.raises(ExportError, match="makes waveforms, the encoder takes frames of 80 features"):
        export(composite("gpt2", "speech_to_text"), tmp_path / "mistaken", processor=processor)
    bundle = export(composite("gpt2", "hubert"), tmp_path / "whole", processor=processor)
    assert bundle.has("tokenizer.json")
    assert bundle.has("preprocessor_config.json")


def test_what_is_not_a_composite_is_named(halves: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(halves[0], "-o", tmp_path / "bundle")
    assert result.exit_code == 1
    assert "is a wav2vec2 model (Wav2Vec2Model), not a speech-encoder-decoder" in result.stderr
    assert not list(tmp_path.iterdir())


def test_halves_in_the_wrong_place_are_named(halves: tuple[Path, Path], tmp_path: Path) -> None:
    swapped = run("--encoder", halves[1], "--decoder", halves[1], "-o", tmp_path / "bundle")
    assert "is a bert model that takes input_ids; a speech encoder takes input_values" in swapped.stderr
    whole = run("--encoder", CHECKPOINT, "--decoder", halves[1], "-o", tmp_path / "bundle")
    assert "give a composite checkpoint as MODEL" in whole.stderr


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (
            ParakeetEncoderConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48),
            DECODERS["bert"](),
            "parakeet_encoder cannot be the encoder of a SpeechEncoderDecoderModel",
        ),
        (ENCODERS["wav2vec2"](), OPTConfig(**TINY_OPT), "opt (has no cross-attention|cannot be exported)"),
    ],
)
def test_families_that_do_not_work_are_named(
    encoder: PretrainedConfig, decoder: PretrainedConfig, message: str, tmp_path: Path
) -> None:
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = SpeechEncoderDecoderModel(config)
    model.generation_config = GenerationConfig(decoder_start_token_id=1)
    with pytest.raises(ExportError, match=message):
        export(model, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "loaded from this directory: it has no config.json or adapter_config.json; it holds gen"),
        ("tokenizer", "a tokenizer (tokenizer.json) could not be loaded from this directory: it has no tokenizer.json"),
        (
            "preprocessor_config.json",
            "it has no preprocessor_config.json or processor_config.json; it holds config.json",
        ),
        ("model.safetensors", "weights could not be loaded"),
    ],
)
def test_missing_parts_are_named(tmp_path: Path, missing: str, message: str) -> None:
    checkpoint = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    for path in checkpoint.glob(f"{missing}*"):
        path.unlink()
    result = run(checkpoint, "-o", tmp_path / "bundle")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "bundle").exists()


def test_both_missing_parts_are_named_at_once(halves: tuple[Path, Path], tmp_path: Path) -> None:
    copies = {name: tmp_path / name for name in ("checkpoint", "encoder", "decoder")}
    for copy, original in zip(copies.values(), (CHECKPOINT, *halves), strict=True):
        shutil.copytree(original, copy)
        for path in (*copy.glob("preprocessor*"), *copy.glob("tokenizer*"), *copy.glob("vocab*")):
            path.unlink()
    checkpoint, encoder, decoder = copies.values()
    for names in ((checkpoint,), ("--encoder", encoder, "--decoder", decoder)):
        result = run(*names, "-o", tmp_path / "bundle")
        assert result.exit_code == 1
        for said in (
            "it has no preprocessor_config.json",
            "it has no tokenizer.json",
            "save both there",
            "(--without feature-extractor --without tokenizer)",
        ):
            assert said in result.stderr


def test_wrong_directories_are_refused_before_the_libraries_are_loaded(tmp_path: Path) -> None:
    """They take 20 s where the disk is cold."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "bundle").mkdir()
    wrong = {
        ("empty", "-o", "new"): "it has no config.json or adapter_config.json; it holds nothing",
        ("nowhere/x/y", "-o", "new"): "there is no such file or directory",
        ("--encoder", "empty", "--decoder", "empty", "-o", "new"): "it has no config.json",
        (str(CHECKPOINT), "--processor", "nowhere/x/y", "-o", "new"): "there is no such file or directory",
        (str(CHECKPOINT), "-o", "bundle"): "bundle exists already; give --overwrite",
        (str(CHECKPOINT), "-o", "new", "--calibration-audio", "nowhere"): "nowhere is not a directory",
        (str(CHECKPOINT), "bundle"): "the directory of the bundle follows -o: speech-export MODEL -o BUNDLE",
    }
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; "
        "from speech_export.cli.export import main; main()"
    )
    for arguments, said in wrong.items():
        command = [sys.executable, "-c", code, *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode in (1, 2)
        assert said in result.stderr


def test_a_directory_of_nearly_the_same_name_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CHECKPOINT, "run/checkpoint-500")
    names = {"./run/checkpont-500/": "run/checkpoint-500", "./ruin": "run", "run": "run/checkpoint-500"}
    for wrong, right in names.items():
        result = run(wrong, "--offline", "-o", "bundle")
        assert f"{wrong}: " in result.stderr
        assert f"(did you mean {right}?)" in result.stderr


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, file: str) -> None:
    checkpoint = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    (checkpoint / file).write_bytes((CHECKPOINT / file).read_bytes()[:1000])
    with pytest.raises(ExportError, match="could not be loaded from this directory"):
        load_checkpoint(str(checkpoint))


def test_a_checkpoint_without_some_weights_is_refused(tmp_path: Path) -> None:
    model = SpeechEncoderDecoderModel.from_pretrained(CHECKPOINT)
    weights = {name: tensor for name, tensor in model.state_dict().items() if "crossattention" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ExportError, match=r"lacks \d+ of the model's weights: .*crossattention.* and \d+ more"):
        load_checkpoint(str(tmp_path), processor=str(CHECKPOINT))


def test_a_hub_id_is_found_in_the_cache(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--someone--digits"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(CHECKPOINT, repository / "snapshots" / ("0" * 40))
    code = (
        "from speech_export.sources.checkpoint import load_checkpoint; print(load_checkpoint('someone/digits').source)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert loaded.stdout == "someone/digits\n"


def test_an_adapter_goes_with_weights(halves: tuple[Path, Path], tmp_path: Path) -> None:
    configs = ("--encoder-config", "e.json", "--decoder-config", "d.json", "--random-weights", "-o", tmp_path / "b")
    for flag in ("--adapter", "--target-lang"):
        assert f"{flag} goes with MODEL or a pair: configurations have no weights" in run(*configs, flag, "x").stderr
    for name, said in (
        (tmp_path / "nowhere", "there is no such file"),
        (halves[0], "is not an adapter of peft: it has"),
    ):
        for source in ((CHECKPOINT,), ("--encoder", halves[0], "--decoder", halves[1])):
            refused = run(*source, "--adapter", name, "-o", tmp_path / "bundle")
            assert f"{name}" in refused.stderr
            assert said in refused.stderr


def test_an_adapter_is_merged_and_exported(tmp_path: Path) -> None:
    save_adapter(SpeechEncoderDecoderModel.from_pretrained(CHECKPOINT), tmp_path / "adapter", base=CHECKPOINT)
    given = run(CHECKPOINT, "--adapter", tmp_path / "adapter", "-o", tmp_path / "given")
    assert given.exit_code == 0, given.output
    alone = run(tmp_path / "adapter", "-o", tmp_path / "alone")
    assert alone.exit_code == 0, alone.output
    samples = np.random.default_rng(0).standard_normal((1, 9000)).astype(np.float32)
    prompt = np.array([[1, 2]])
    bundles = [OnnxSpeechSeq2Seq.from_pretrained(tmp_path / name) for name in ("given", "alone")]
    found = [bundle.forward(samples, decoder_input_ids=prompt).logits for bundle in bundles]
    np.testing.assert_array_equal(*found)


def test_a_language_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    refused = run(CHECKPOINT, "--target-lang", "fra", "-o", tmp_path / "bundle")
    assert "--target-lang fra:" in refused.stderr
    assert "has no language adapters" in refused.stderr.replace("\n", " ")
