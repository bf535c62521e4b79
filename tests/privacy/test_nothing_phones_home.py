"""Test that commands open no connection that was not asked for, and write nothing beside their output.

A process that opens an internet socket is killed, in native code too; the home directory is empty before and after.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from conftest import CHECKPOINT, Pair
from no_network import KILLED, available, forbid_network
from optimum_command import RUN_OPTIMUM_CLI

pytestmark = pytest.mark.skipif(not available(), reason="the filter of system calls needs Linux on x86-64 or arm64")

IN_CI = (
    *("APPVEYOR", "BUILDKITE", "CI", "CIRCLECI", "CODEBUILD_BUILD_ID", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL"),
    *("TEAMCITY_VERSION", "TF_BUILD", "TRAVIS"),
)
"""Variables at whose sight ONNX Runtime reports nothing; commands here run without them, as a user's would."""
RUN = "from speech_runtime.cli.commands import {0}; {0}()"


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Directories that a command may see: home, temporary files, its own directory, and where output goes."""
    made = {name: tmp_path / name for name in ("home", "temporary", "cwd", "output")}
    for path in made.values():
        path.mkdir()
    return made


def run(
    code: str, arguments: Sequence[object], places: dict[str, Path], **more: str
) -> subprocess.CompletedProcess[str]:
    hidden = ("HF_", "XDG_", "TRANSFORMERS_")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in IN_CI and not name.endswith("TELEMETRY") and not name.startswith(hidden)
    }
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={
            **environment,
            "HOME": str(places["home"]),
            "TMPDIR": str(places["temporary"]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        | more,
        cwd=places["cwd"],
        preexec_fn=forbid_network,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def files_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def check_quiet(done: subprocess.CompletedProcess[str], places: dict[str, Path]) -> None:
    assert done.returncode == 0, done.stderr
    assert {name: files_in(places[name]) for name in ("home", "temporary", "cwd")} == {
        "home": [],
        "temporary": [],
        "cwd": [],
    }


def test_the_filter_kills() -> None:
    code = "import socket; socket.socket(socket.AF_UNIX); socket.socket(socket.AF_INET)"
    done = subprocess.run([sys.executable, "-c", code], preexec_fn=forbid_network, check=False)
    assert done.returncode == KILLED


def test_onnxruntime_alone_phones_home(places: dict[str, Path], digits: Pair) -> None:
    """Without our switch a session of the same library is killed or leaves files: the tests below can fail."""
    graph = digits.directory / "decoder_init.onnx"
    code = "import onnxruntime, sys, time; onnxruntime.InferenceSession(sys.argv[1]); time.sleep(2)"
    done = run(code, [graph], places)
    assert done.returncode == KILLED or files_in(places["home"])


def test_export(places: dict[str, Path]) -> None:
    done = run(RUN.format("export"), [CHECKPOINT, "-o", places["output"] / "bundle"], places)
    check_quiet(done, places)


def test_export_by_optimum(places: dict[str, Path]) -> None:
    done = run(RUN_OPTIMUM_CLI, ["export", "speech", CHECKPOINT, "-o", places["output"] / "bundle"], places)
    assert "was imported before speech_runtime" not in done.stderr
    check_quiet(done, places)


def test_a_pipeline_of_transformers(places: dict[str, Path], digits: Pair, references: dict[Path, str]) -> None:
    clip, text = next(iter(references.items()))
    code = """
import socket, sys, soundfile
socket.has_ipv6 = False  # else urllib3, which Optimum imports, binds a socket to see whether there is IPv6
from transformers import AutoFeatureExtractor, AutoTokenizer, pipeline
from speech_export.optimum import OnnxModelForSpeechSeq2Seq
parts = {"tokenizer": AutoTokenizer.from_pretrained(sys.argv[1]),
         "feature_extractor": AutoFeatureExtractor.from_pretrained(sys.argv[1])}
model = OnnxModelForSpeechSeq2Seq.from_pretrained(sys.argv[1])
print(pipeline("automatic-speech-recognition", model=model, **parts)(soundfile.read(sys.argv[2])[0])["text"])
"""
    done = run(code, [digits.directory, clip], places)
    assert done.stdout.strip() == text
    check_quiet(done, places)


def test_transcribe(places: dict[str, Path], digits: Pair, references: dict[Path, str]) -> None:
    clip, text = next(iter(references.items()))
    done = run(RUN.format("transcribe"), [digits.directory, clip], places)
    assert text in done.stdout
    check_quiet(done, places)


def test_bench(places: dict[str, Path], digits: Pair) -> None:
    arguments = [digits.directory, "--quick", "--seconds", 1, "--tokens", 5, "--repeats", 1]
    check_quiet(run(RUN.format("bench"), arguments, places), places)


def test_python(places: dict[str, Path], digits: Pair, references: dict[Path, str]) -> None:
    clip, text = next(iter(references.items()))
    code = """
import sys
from speech_runtime import OnnxSpeechSeq2Seq
print(OnnxSpeechSeq2Seq.from_pretrained(sys.argv[1]).transcribe(sys.argv[2]))
"""
    done = run(code, [digits.directory, clip], places)
    assert done.stdout.strip() == text
    check_quiet(done, places)


def test_a_choice_of_the_user_stays(places: dict[str, Path]) -> None:
    code = "import os, speech_runtime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run(code, [], places, ORT_DISABLE_TELEMETRY="0").stdout == "0\n"


def test_onnxruntime_before_us_is_warned_about_once(places: dict[str, Path]) -> None:
    code = "import sys, types; sys.modules['onnxruntime'] = types.ModuleType('onnxruntime'); import speech_export"
    warned = run(code, [], places).stderr
    assert warned.count("onnxruntime was imported before speech_runtime") == 1
    assert "set ORT_DISABLE_TELEMETRY=1" in warned
    assert not run(code, [], places, ORT_DISABLE_TELEMETRY="1").stderr
