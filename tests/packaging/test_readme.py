"""Test that the commands and the code of the README work as shown; `.ci/run` runs its two make commands."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conftest import REPOSITORY, Pair
from speech_export.cli.export import main as speech_export
from speech_runtime.cli.transcribe import main as speech_transcribe

README = (REPOSITORY / "README.md").read_text()
COMMANDS = {"speech-export": speech_export, "speech-transcribe": speech_transcribe}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_commands_run(checkout: Path) -> None:
    lines = [line.removeprefix("$ ").partition("#")[0] for block in blocks("console") for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines]
    run = [(name, arguments) for name, *arguments in commands if name in COMMANDS]
    assert [name for name, _ in run] == ["speech-export", "speech-transcribe", "speech-export"]
    for name, arguments in run:
        result = CliRunner().invoke(COMMANDS[name], arguments)
        assert result.exit_code == 0, result.output
    assert {name for name, *_ in commands} == {"make", "pip", *COMMANDS}


def test_the_python_runs(
    checkout: Path, digits: Pair, references: dict[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "build").mkdir()
    (checkout / "build" / "digits").symlink_to(digits.directory)
    names: dict[str, Any] = {}
    for code in blocks("python"):
        exec(code, names)  # noqa: S102 - our own README
    assert capsys.readouterr().out.strip() in references.values()
    assert names["best_two"].shape[0] == 2
    assert names["loss"] < 0.5
    assert names["likelihoods"].shape == (2,)


def test_the_transcript_is_what_the_clips_say(references: dict[Path, str]) -> None:
    (shown,) = blocks("text")
    transcript, _, following = shown.partition("\n\n")
    assert transcript.splitlines()[-len(references) :] == list(references.values())
    assert all(
        line.strip() in (REPOSITORY / "Makefile").read_text().replace("$(BIN)", ".venv/bin")
        for line in following.splitlines()
    )
