"""The runtime alone: a fresh environment without torch and transformers, in which `speech-transcribe` works."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from conftest import REPOSITORY, Pair

MODULES = "import sys; import speech_runtime; print(*sys.modules)"


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment with nothing but `speech-export[cpu,audio]`."""
    directory = tmp_path_factory.mktemp("torch-free")
    venv.create(directory, with_pip=True)
    binaries = directory / "bin"
    requirement = f"{REPOSITORY}[cpu,audio]"
    subprocess.run(
        [binaries / "pip", "install", "--quiet", "-c", REPOSITORY / "constraints.txt", requirement], check=True
    )
    return binaries


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
