"""Test `optimum-cli export speech`: it is `speech-export` under another name."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from conftest import CHECKPOINT
from optimum_command import RUN_OPTIMUM_CLI
from speech_export.cli.export import main
from speech_runtime import Bundle


def run(*arguments: object, code: str = RUN_OPTIMUM_CLI) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, "export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_optimum_lists_it() -> None:
    done = run("--help")
    assert done.returncode == 0, done.stderr
    assert "{speech}" in done.stdout
    assert "Export a speech encoder-decoder model to a bundle" in done.stdout


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_its_help_is_that_of_speech_export(flag: str) -> None:
    done = run("speech", flag)
    assert done.returncode == 0, done.stderr
    wanted = CliRunner().invoke(main, [flag], prog_name="optimum-cli export speech").stdout
    assert "".join(done.stdout.split()) == "".join(wanted.split())  # lines are broken elsewhere


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-o", "bundle"],
        ["/nowhere/model", "-o", "bundle"],
        ["model", "-o", "bundle", "--top-k", "1"],
        ["model", "other", "--no-such-flag"],
        ["-o", "bundle", "--", "-model"],
    ],
    ids=" ".join,
)
def test_errors_are_those_of_speech_export(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = CliRunner().invoke(main, arguments, prog_name="optimum-cli export speech")
    done = run("speech", *arguments)
    assert done.returncode == wanted.exit_code != 0
    assert done.stderr == wanted.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_exported(tmp_path: Path) -> None:
    done = run("speech", "-o", tmp_path / "bundle", "--max-length", 20, CHECKPOINT)
    assert done.returncode == 0, done.stderr
    assert "greedy 100.00%, 4 beams 100.00%" in done.stdout
    assert Bundle.open(tmp_path / "bundle").manifest.source == str(CHECKPOINT)


def test_nothing_heavy_is_imported_before_it_runs() -> None:
    code = RUN_OPTIMUM_CLI.replace("import main", "import load_optimum_namespace_cli_commands as main")
    loaded = set(run(code=f"{code}\nprint(*sys.modules)").stdout.split())
    assert "optimum.commands.register.register_speech_export" in loaded
    assert not loaded & {"torch", "transformers", "onnx", "onnxruntime", "speech_export", "speech_runtime"}
