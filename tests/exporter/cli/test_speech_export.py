"""Test the `speech-export` command: its summary, its errors, and that a refused export leaves no files."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import onnx_ir as ir
import pytest
import torch
from click.testing import CliRunner, Result
from transformers import (
    GenerationConfig,
    SpeechEncoderDecoderModel,
)

import speech_export
from composites import composite
from conftest import CHECKPOINT, Pair
from short_audio import verified_on_short_audio
from speech_export import ExportError, VerificationError, export
from speech_export.cli.export import main
from speech_export.tracing.tracer import Traceable
from speech_runtime import Bundle, OnnxSpeechSeq2Seq


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.usefixtures("traced_once")
def test_a_checkpoint_is_exported_and_summed_up(tmp_path: Path) -> None:
    result = run(CHECKPOINT, "-o", tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    for line in ("encoder ", "decoder_init ", "decoder_with_past ", "whole bundle", "greedy 100.00%, 4 beams 100.00%"):
        assert line in result.stdout
    assert "[5/5] verifying against torch … " in result.stderr
    assert OnnxSpeechSeq2Seq.from_pretrained(tmp_path / "bundle").manifest.source == str(CHECKPOINT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either MODEL, or both"),
        (("--encoder", "x"), "give either MODEL, or both"),
        (("model", "--encoder", "x", "--decoder", "y"), "give either MODEL, or both"),
        (("/nowhere/model",), "/nowhere/model: there is no such file or directory; give a directory, or a Hub id"),
        (("model", "--top-k", "6_4"), "'--top-k': '6_4' is not an integer; write it in the digits 0 to 9"),
        (("model", "--seed", "\N{ARABIC-INDIC DIGIT THREE}"), "is not an integer; write it in the digits 0 to 9"),
        (("model", "--tolerance", "1_0"), "'1_0' is not a number; write it in the digits 0 to 9"),
        (("model", "--engines", "--trt-beams", "1", "4_0", "50"), "'4_0' is not an integer"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = run(*arguments, "-o", tmp_path / "bundle")
    assert result.exit_code != 0
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


HELP_WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(["torch", "transformers", "onnx", "onnx_ir", "onnxscript", "onnxruntime"]))
sys.argv = ["speech-export", "--help"]
import runpy
runpy.run_module("speech_export", run_name="__main__")
"""
"""None in sys.modules makes an import fail, as if nothing of it were installed."""


def test_the_help_groups_every_option_and_needs_no_torch() -> None:
    shown = subprocess.check_output([sys.executable, "-c", HELP_WITHOUT_TORCH], text=True)
    headings = re.findall(r"^(\S.*):$", shown, re.MULTILINE)
    assert headings == [*main.headings, "Other"]
    for option in main.params:
        if isinstance(option, click.Option):
            assert re.search(rf"^  (-o, )?{option.opts[-1]}\b", shown, re.MULTILINE), option.name
    others = shown.partition("\nOther:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^  (?:-h, )?--(\S+)", others, re.MULTILINE) == ["list-families", "version", "help"]


def test_every_example_of_the_help_is_a_command_line() -> None:
    examples = re.findall(r"^ +speech-export (.*)$", str(main.epilog), re.MULTILINE)
    assert len(examples) >= 6
    for example in examples:
        context = main.make_context("speech-export", example.split())
        assert context.params["output"] == "bundle" or context.params["engines"]


def test_the_command_and_the_package_have_one_version() -> None:
    said = CliRunner().invoke(main, ["--version"]).stdout
    assert said.endswith(f"version {speech_export.__version__}\n")
    with pytest.raises(AttributeError, match="has no attribute 'reason'"):
        speech_export.reason  # noqa: B018


def test_configurations_have_no_processor(tmp_path: Path) -> None:
    configurations = ("--encoder-config", "x", "--decoder-config", "y", "--random-weights")
    result = run(*configurations, "--processor", "z", "-o", tmp_path / "bundle")
    assert result.exit_code == 2
    assert "--processor goes with MODEL or a pair" in result.stderr


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
        assert "Interrupted" in process.stderr.read()
        assert process.wait() == 130
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "decoder_start_token_id is not set"),
        ({"decoder_start_token_id": 1, "penalty_alpha": 0.6}, "penalty_alpha is for contrastive search"),
    ],
)
def test_generation_settings_are_checked_before_anything_is_traced(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model, stages = composite("bert"), list[str]()
    model.generation_config = GenerationConfig(**settings)
    model.decoder.config.bos_token_id = model.decoder.config.eos_token_id = None
    with pytest.raises(ExportError, match=message):
        export(model, tmp_path / "bundle", on_stage=stages.append)
    assert not stages


@pytest.mark.usefixtures("traced_once")
def test_a_failed_verification_leaves_nothing(tmp_path: Path) -> None:
    result = run(CHECKPOINT, "-o", tmp_path / "bundle", "--tolerance", "1e-12")
    assert result.exit_code == 1
    assert "log-probabilities differ by up to" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("traced_once")
def test_verification_notices_a_wrong_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from speech_export import export_bundle as pipeline

    honest = pipeline.trace

    def sabotaged(graph: Traceable, *arguments: Any) -> Any:
        model = honest(graph, *arguments)
        if graph.name == "decoder_init":
            weight = next(v for v in model.graph.initializers.values() if len(v.const_value.shape) == 2)
            weight.const_value = ir.tensor(weight.const_value.numpy() * 1.01)
        return model

    monkeypatch.setattr(pipeline, "trace", sabotaged)
    with pytest.raises(VerificationError, match="log-probabilities differ"):
        export(CHECKPOINT, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("traced_once")
def test_what_is_there_is_kept_and_replaced_on_request(digits: Pair, tmp_path: Path) -> None:
    target = Path(shutil.copytree(digits.directory, tmp_path / "bundle"))
    before = target.stat().st_ino
    refused = run(CHECKPOINT, "-o", target)
    assert refused.exit_code == 1
    assert "exists already; give --overwrite" in refused.stderr
    interrupted = run(CHECKPOINT, "-o", target, "--overwrite", "--tolerance", "1e-12")
    assert interrupted.exit_code == 1
    assert target.stat().st_ino == before
    assert run(CHECKPOINT, "-o", target, "--overwrite").exit_code == 0
    assert target.stat().st_ino != before
    files = Bundle.open(target).manifest.files
    assert files == digits.exported.manifest.files  # the graphs that were read are those that were traced


def test_an_output_that_cannot_be_written_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = run(CHECKPOINT, "-o", tmp_path / "file" / "bundle")
    assert refused.exit_code == 1
    assert (
        refused.stderr == f"Error: cannot write to {tmp_path}/file: Not a directory; choose another output directory\n"
    )


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


@pytest.mark.usefixtures("traced_once")
def test_a_model_in_training_mode_is_exported_and_left_in_its_modes(tmp_path: Path) -> None:
    model = composite("gpt2").train()
    model.encoder.feature_extractor.eval()  # frozen, as in many trainings
    with verified_on_short_audio():
        export(model, tmp_path / "bundle")
    modes = {name: module.training for name, module in model.named_modules()}
    frozen = {name for name in modes if name.startswith("encoder.feature_extractor")}
    assert {name for name, training in modes.items() if not training} == frozen
