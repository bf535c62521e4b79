"""The `speech-export` command: what it says, and what it refuses without leaving anything behind."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from click.testing import CliRunner, Result
from tokenizers import Tokenizer, decoders, models
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    GenerationConfig,
    HubertConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    Wav2Vec2BertConfig,
    Wav2Vec2FeatureExtractor,
)

from composites import composite, decoder_config, encoder_config
from conftest import CHECKPOINT, Pair
from speech_export import ExportError, VerificationError, export
from speech_export.cli import main
from speech_export.sources.checkpoint import load_checkpoint
from speech_export.sources.pair import load_pair
from speech_export.trace import Traceable
from speech_runtime import OnnxSpeechSeq2Seq

TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
TINY_ENCODER = TINY | {
    "intermediate_size": 48,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
TINY_BERT = TINY | {"intermediate_size": 48}
TINY_OPT = TINY | {"vocab_size": 90, "ffn_dim": 40, "word_embed_proj_dim": 32, "max_position_embeddings": 64}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def save_tokenizer(directory: Path) -> None:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3} | {f"▁w{i}": i for i in range(4, 90)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(directory)


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoints of a Wav2Vec2 encoder and of a BERT that was no decoder before."""
    encoder, decoder = tmp_path_factory.mktemp("encoder"), tmp_path_factory.mktemp("decoder")
    AutoModel.from_config(encoder_config()).save_pretrained(encoder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(encoder)
    config = decoder_config("bert")
    config.is_decoder = config.add_cross_attention = False
    AutoModelForCausalLM.from_config(config).save_pretrained(decoder)
    save_tokenizer(decoder)
    return encoder, decoder


def test_a_checkpoint_is_exported_and_summed_up(tmp_path: Path) -> None:
    result = run(CHECKPOINT, "-o", tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    for line in ("encoder ", "decoder_init ", "decoder_with_past ", "whole bundle", "greedy 100.00%, 4 beams 100.00%"):
        assert line in result.stdout
    assert "[5/5] verifying against torch … " in result.stderr
    assert OnnxSpeechSeq2Seq.from_pretrained(tmp_path / "bundle").manifest.source == str(CHECKPOINT)


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
    assert (model.generation_config.start_token_id, model.generation_config.eos_token_ids) == (1, (2,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either MODEL, or both"),
        (("--encoder", "x"), "give either MODEL, or both"),
        (("model", "--encoder", "x", "--decoder", "y"), "give either MODEL, or both"),
        (("/nowhere/model",), "/nowhere/model: a configuration could not be loaded"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = run(*arguments, "-o", tmp_path / "bundle")
    assert result.exit_code != 0
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_not_a_composite_is_named(halves: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(halves[0], "-o", tmp_path / "bundle")
    assert result.exit_code == 1
    assert "is a wav2vec2 model (Wav2Vec2Model), not a speech-encoder-decoder" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_bundle_is_not_exported_again(digits: Pair, tmp_path: Path) -> None:
    result = run(digits.directory, "-o", tmp_path / "bundle")
    assert "is a bundle already" in result.stderr


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "speech-export", CHECKPOINT, "-o", tmp_path / "bundle"]

    def heed_ctrl_c() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are told to ignore it

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c) as process:
        assert process.stderr is not None
        seen = ""
        while "tracing encoder" not in seen:
            seen += process.stderr.read(1)
        assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
        process.send_signal(signal.SIGINT)
        assert "Aborted!" in process.stderr.read()
        assert process.wait() == 1
    assert not list(tmp_path.iterdir())


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


def test_halves_in_the_wrong_place_are_named(halves: tuple[Path, Path], tmp_path: Path) -> None:
    swapped = run("--encoder", halves[1], "--decoder", halves[1], "-o", tmp_path / "bundle")
    assert "is a bert model that takes input_ids; a speech encoder takes input_values" in swapped.stderr
    whole = run("--encoder", CHECKPOINT, "--decoder", halves[1], "-o", tmp_path / "bundle")
    assert "give a composite checkpoint as MODEL" in whole.stderr


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("tokenizer", "a tokenizer (tokenizer.json) could not be loaded"),
        ("preprocessor_config.json", "a feature extractor (preprocessor_config.json) could not be loaded"),
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


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, file: str) -> None:
    checkpoint = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    (checkpoint / file).write_bytes((CHECKPOINT / file).read_bytes()[:1000])
    with pytest.raises(ExportError, match="could not be loaded from this directory"):
        load_checkpoint(str(checkpoint))


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (HubertConfig(**TINY_ENCODER), decoder_config("bert"), "hubert cannot be exported yet, its encoder cannot"),
        (Wav2Vec2BertConfig(**TINY_BERT), decoder_config("bert"), "wav2vec2-bert cannot be exported yet.*conv_kernel"),
        (encoder_config(), OPTConfig(**TINY_OPT), "opt has no cross-attention"),
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
    ("settings", "message"),
    [
        ({}, "decoder_start_token_id is not set"),
        ({"decoder_start_token_id": 1, "repetition_penalty": 1.3}, "generation_config.json: repetition_penalty is not"),
    ],
)
def test_generation_settings_are_checked_before_anything_is_traced(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model, stages = composite("bert"), list[str]()
    model.generation_config = GenerationConfig(**settings)
    with pytest.raises(ExportError, match=message):
        export(model, tmp_path / "bundle", on_stage=stages.append)
    assert not stages


def test_a_checkpoint_without_some_weights_is_refused(tmp_path: Path) -> None:
    model = SpeechEncoderDecoderModel.from_pretrained(CHECKPOINT)
    weights = {name: tensor for name, tensor in model.state_dict().items() if "crossattention" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ExportError, match=r"lacks \d+ of the model's weights: .*crossattention.* and \d+ more"):
        load_checkpoint(str(tmp_path), processor=str(CHECKPOINT))


def test_a_failed_verification_leaves_nothing(tmp_path: Path) -> None:
    result = run(CHECKPOINT, "-o", tmp_path / "bundle", "--tolerance", "1e-12")
    assert result.exit_code == 1
    assert "log-probabilities differ by up to" in result.stderr
    assert not list(tmp_path.iterdir())


def test_verification_notices_a_wrong_weight(digits: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from speech_export import pipeline

    honest = pipeline.trace

    def sabotaged(graph: Traceable, input_name: str, layers: int) -> Any:
        model = honest(graph, input_name, layers)
        if graph.name == "decoder_init":
            weight = next(v for v in model.graph.initializers.values() if len(v.const_value.shape) == 2)
            weight.const_value = ir.tensor(weight.const_value.numpy() * 1.01)
        return model

    monkeypatch.setattr(pipeline, "trace", sabotaged)
    with pytest.raises(VerificationError, match="log-probabilities differ"):
        export(CHECKPOINT, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_kept_and_replaced_on_request(digits: Pair, tmp_path: Path) -> None:
    target = Path(shutil.copytree(digits.directory, tmp_path / "bundle"))
    (target / "marker").write_text("old")
    refused = run(CHECKPOINT, "-o", target)
    assert refused.exit_code == 1
    assert "exists already; give --overwrite" in refused.stderr
    interrupted = run(CHECKPOINT, "-o", target, "--overwrite", "--tolerance", "1e-12")
    assert interrupted.exit_code == 1
    assert (target / "marker").exists()
    assert run(CHECKPOINT, "-o", target, "--overwrite").exit_code == 0
    assert not (target / "marker").exists()


@pytest.mark.parametrize("model", [3, torch.nn.Linear(1, 1)])
def test_what_is_no_model_is_refused(model: object, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot export a"):
        export(model, tmp_path / "bundle")


def test_a_half_precision_model_is_refused(pair: Callable[[str], Pair], tmp_path: Path) -> None:
    model = SpeechEncoderDecoderModel.from_pretrained(CHECKPOINT, dtype=torch.float16)
    with pytest.raises(ExportError, match="must be float32 on the CPU"):
        export(model, tmp_path / "bundle")


def test_the_model_is_left_as_it_was(pair: Callable[[str], Pair]) -> None:
    model = pair("bert").reference
    assert model.encoder.config._attn_implementation == "sdpa"
    assert model.decoder.config._attn_implementation == "sdpa"
    assert "_get_feature_vector_attention_mask" not in vars(model.encoder)
    assert not model.training
