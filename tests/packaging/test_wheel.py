"""Test that the wheel, installed away from the checkout without torch and transformers, is complete."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from conftest import REPOSITORY, Pair

MODULES = "import sys; import speech_runtime; print(*sys.modules)"
PACKAGES = {"speech_export": REPOSITORY / "exporter", "speech_runtime": REPOSITORY / "runtime"}
NAMESPACES = {"optimum": REPOSITORY / "exporter"}
"""Folders that belong to other packages, with files of ours that they look for there."""
FOLDERS = PACKAGES | NAMESPACES
REGISTERED = "optimum/commands/register/register_speech_export.py"
"""The only file there: an `__init__.py` would take the namespace away from the others."""


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a source distribution of this checkout, and of the wheel that was built from it."""
    directory = tmp_path_factory.mktemp("distributions")
    build = [sys.executable, "-m", "build", "--outdir", directory, REPOSITORY]
    subprocess.run(build, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    """The wheel of `distributions`."""
    (found,) = distributions.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The bin folder of a virtual environment with nothing but the wheel and its extras `cpu` and `audio`."""
    directory = tmp_path_factory.mktemp("torch-free")
    venv.create(directory, with_pip=True)
    binaries = directory / "bin"
    requirement = f"{wheel}[cpu,audio]"
    constraints = REPOSITORY / "constraints.txt"
    subprocess.run([binaries / "pip", "install", "--quiet", "-c", constraints, requirement], check=True, cwd=directory)
    return binaries


def test_nothing_is_left_out(distributions: Path, wheel: Path) -> None:
    sources = {
        (path.relative_to(folder).as_posix(), path.read_bytes())
        for name, folder in FOLDERS.items()
        for path in (folder / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {(name, archive.read(name)) for name in archive.namelist() if name.partition("/")[0] in FOLDERS}
    assert packed == sources
    assert {f"{name}/py.typed" for name in PACKAGES} <= {name for name, _ in packed}
    assert [name for name, _ in packed if name.startswith("optimum/")] == [REGISTERED]
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "runtime/speech_runtime/py.typed"} <= names


@pytest.mark.parametrize("command", ["speech-export", "speech-transcribe", "speech-bench"])
def test_every_command_has_its_help(environment: Path, tmp_path: Path, command: str) -> None:
    shown = subprocess.run([environment / command, "--help"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert shown.stdout.startswith(f"Usage: {command} [OPTIONS]")


def test_speech_transcribe_works_without_torch(environment: Path, digits: Pair, references: dict[Path, str]) -> None:
    for missing in ("torch", "transformers", "onnx"):
        absent = subprocess.run([environment / "python", "-c", f"import {missing}"], capture_output=True, check=False)
        assert b"ModuleNotFoundError" in absent.stderr
    heard = subprocess.run(
        [environment / "speech-transcribe", digits.directory, *references],
        capture_output=True,
        text=True,
        check=True,
    )
    assert heard.stdout.splitlines() == list(references.values())


def test_speech_bench_works_without_torch(environment: Path, digits: Pair) -> None:
    small = ("--quick", "--seconds", "1", "--beams", "1", "--batch", "1", "--tokens", "2", "--repeats", "1")
    found = subprocess.run(
        [environment / "speech-bench", digits.directory, *small], capture_output=True, text=True, check=True
    )
    assert f"| {digits.directory.name} | 1 | 1 | 1 | 2 | all |" in found.stdout


def test_speech_export_says_what_to_install(environment: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [environment / "speech-export", "model", "-o", tmp_path / "bundle"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "pip install 'speech-export[export,cpu]'" in result.stderr


def test_the_runtime_imports_nothing_heavy() -> None:
    loaded = subprocess.run([sys.executable, "-c", MODULES], capture_output=True, text=True, check=True).stdout.split()
    heavy = ("torch", "transformers", "onnx", "speech_export", "onnxruntime", "soundfile", "scipy", "huggingface_hub")
    assert not set(heavy) & set(loaded)
