"""Every command and every snippet of the README and the docs works.

Blocks are run in order, page by page, in a copy of the checkout. Those that need a GPU, the Hub or minutes are marked
with `<!-- not run here: reason -->`; of these, every flag, make target and import must exist all the same.
"""

import ast
import glob
import importlib
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import speech_export
from conftest import CHECKPOINT, CLIPS, ExportOnce, Pair
from pages import PAGES, REPOSITORY, Block, Command, blocks_of
from speech_export.cli.export import main as export_command
from speech_export.precision.options import PrecisionOptions
from speech_runtime import Bundle
from speech_runtime.__main__ import main as describe_command
from speech_runtime.cli.bench import main as bench_command
from speech_runtime.cli.transcribe import main as transcribe_command

COMMANDS: dict[str, click.Command] = {
    "speech-export": export_command,
    "speech-transcribe": transcribe_command,
    "speech-bench": bench_command,
    "python -m speech_export": export_command,
    "optimum-cli export speech": export_command,
    "python -m speech_runtime": describe_command,
}
OTHER_PROGRAMS = {"cat", "export", "pre-commit"}
MAKEFILE = (REPOSITORY / "Makefile").read_text()
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
EVERY = [(page, block) for page in PAGES for block in blocks_of(page)]


def place(page: Path, block: Block) -> str:
    return f"{page.relative_to(REPOSITORY)}:{block.line}"


def of_language(*languages: str) -> list[Any]:
    return [pytest.param(block, id=place(page, block)) for page, block in EVERY if block.language in languages]


def of_ours(words: list[str]) -> tuple[click.Command, list[str]] | None:
    """One of our own commands and its arguments; None for another program."""
    for name, command in COMMANDS.items():
        if words[: len(name.split())] == name.split():
            return command, words[len(name.split()) :]
    return None


@pytest.mark.parametrize("block", of_language("console", "bash"))
def test_flags_targets_and_extras_exist(block: Block) -> None:
    for line in block.commands:
        check(line.words)


def check(words: list[str]) -> None:
    """Check a command line without running it."""
    if (ours := of_ours(words)) is not None:
        check_flags(*ours)
    elif words[0] == "make":
        for target in (word for word in words[1:] if "=" not in word):
            assert re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE), f"there is no make target {target}"
    elif words[0] == "pip":
        for listed in re.findall(r"\[([\w,-]+)\]", " ".join(words)):
            assert set(listed.split(",")) <= EXTRAS.keys(), f"pyproject.toml lacks an extra of [{listed}]"
    else:
        assert words[0] in OTHER_PROGRAMS, f"{words[0]} is not a program that the docs may use"
        if "|" in words:
            check(words[words.index("|") + 1 :])


def check_flags(command: click.Command, arguments: list[str]) -> None:
    context = command.make_context("command", [], resilient_parsing=True)
    given, _, _ = command.make_parser(context).parse_args(list(arguments))
    choices = {
        parameter.name: parameter.type.choices
        for parameter in command.params
        if isinstance(parameter.type, click.Choice)
    }
    for name, value in given.items():
        for each in value if isinstance(value, (list, tuple)) else [value]:
            assert name not in choices or each is None or each in choices[name], f"{name} may not be {each!r}"


@pytest.mark.parametrize("block", of_language("python"))
def test_imports_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            missing = [name.name for name in node.names if not hasattr(module, name.name)]
            assert not missing, f"{node.module} has no {', '.join(missing)}"
        elif isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)


@pytest.fixture
def checkout(tmp_path: Path, digits: Pair, export_once: ExportOnce, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the checkout with a bundle in `build/digits`, as the working directory."""
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules[speech_export.export.__module__], "export", shared_export(digits, export_once))
    shutil.copytree(digits.directory, tmp_path / "build" / "digits")
    return tmp_path


def shared_export(digits: Pair, export_once: ExportOnce) -> Callable[..., Bundle]:
    """`speech_export.export`, which tests share: each kind of bundle is exported once, and then copied."""

    def export(model: Any, output_dir: str, **settings: Any) -> Bundle:
        assert Path(model.source) == CHECKPOINT.relative_to(REPOSITORY)
        options: PrecisionOptions = settings.get("precision") or PrecisionOptions()
        if settings.get("vocabulary"):
            bundle = export_once("digits-letters", model, vocabulary=settings["vocabulary"])
        elif options.precision == "fp32":
            bundle = digits.directory
        else:
            assert Path(settings["calibration_audio"]) == CLIPS.relative_to(REPOSITORY)
            name = f"digits-{options.precision}-{options.target}"
            bundle = export_once(name, CHECKPOINT, precision=options, calibration_audio=CLIPS)
        shutil.copytree(bundle, output_dir, dirs_exist_ok=True)
        return Bundle.open(output_dir)

    return export


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(REPOSITORY))) for page in PAGES])
def test_the_blocks_run(page: Path, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks_of(page):
        if block.reason is not None:
            continue
        if block.language == "python":
            exec(compile(block.text, place(page, block), "exec"), names)  # noqa: S102 - our own docs
        for line in block.commands if block.language in ("console", "bash") else []:
            run(line, place(page, block))


def run(line: Command, where: str) -> None:
    """Run one of our own commands; installations and make targets are run by CI."""
    words, audio = line.words, None
    if words[0] == "cat":
        audio, words = Path(words[1]).read_bytes(), words[words.index("|") + 1 :]
    if (ours := of_ours(words)) is None:
        assert not line.output, f"{where}: what {words[0]} prints is not checked"
        return
    command, arguments = ours
    paths = [path for word in arguments for path in (sorted(glob.glob(word)) if "*" in word else [word])]  # noqa: PTH207
    if command is export_command and "-o" in arguments and "--overwrite" not in arguments:  # as the first time
        shutil.rmtree(arguments[arguments.index("-o") + 1], ignore_errors=True)
    result = CliRunner().invoke(command, paths, input=audio)
    assert result.exit_code == 0, f"{where}: {' '.join(words)}\n{result.output}"
    if line.output:
        assert result.stdout.splitlines() == line.output, where


def test_what_is_not_run_says_why() -> None:
    reasons = {block.reason for _, block in EVERY if block.reason is not None}
    assert reasons
    assert all(re.search(r"\b(GPU|Hub|minute|network)", reason) for reason in reasons), reasons
