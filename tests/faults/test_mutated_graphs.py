"""Test mutated graphs with correct hashes: each is refused by name or runs, without a traceback, a hang or a crash."""

import json
import os
import selectors
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from conftest import CLIPS, ONE_THREAD, Pair
from faults import mutated_graphs
from speech_runtime import Bundle, OnnxSpeechSeq2Seq
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.safe_files import FileFacts

TRIES, MANY = 60, 1000
LIMIT = 60.0
"""Seconds of one try; a try takes a tenth of a second."""
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
BATCH = 100
"""Tries of a process: what mutated sizes have asked for stays in ONNX Runtime's arena, for the next graph."""
CLIP = CLIPS / "02-espeak-us.wav"


@pytest.fixture(scope="module", params=["one file", "external data"])
def whole(
    request: pytest.FixtureRequest,
    digits: Pair,
    references: dict[Path, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The bundled model; with external data a graph is all structure, and most mutations are of it."""
    directory = tmp_path_factory.mktemp("whole") / "bundle"
    shutil.copytree(digits.directory, directory)
    if request.param == "one file":
        return directory
    for graph in GRAPHS:
        path = directory / f"{graph}.onnx"
        model = onnx.load(path)
        path.unlink()
        onnx.save(model, path, save_as_external_data=True, location=f"{graph}.onnx.data", size_threshold=1024)
    manifest = Bundle.open(digits.directory).manifest
    for path in directory.glob("*.onnx*"):
        manifest.files[path.name] = FileFacts.of(path)
    manifest.write(directory)
    assert OnnxSpeechSeq2Seq.from_pretrained(directory, options=ONE_THREAD).transcribe(CLIP) == references[CLIP]
    return directory


def tried(whole: Path, work: Path, tries: int) -> dict[int, dict[str, Any]]:
    """Return the outcome of each try; after a crash, a new process goes on with the next one."""
    found: dict[int, dict[str, Any]] = {}
    while len(found) < tries:
        last = min(len(found) + BATCH, tries)
        arguments = [str(whole), str(work), str(CLIP), str(len(found)), str(last)]
        command = [sys.executable, mutated_graphs.__file__, *arguments]
        with (work.parent / "stderr").open("wb") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=ENVIRONMENT, bufsize=0)
        hung = False
        for line in lines_of(process):
            hung = line is None
            if line is not None and "kind" in line:
                found[len(found)] = line
        if hung:
            process.kill()
        code = process.wait()
        if len(found) < last:
            said = (work.parent / "stderr").read_text(errors="replace")[-2000:]
            found[len(found)] = {"kind": "hang" if hung else f"ended by {code}", "said": said, "graph": ""}
    return found


def lines_of(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any] | None]:
    """Lines of JSON as they come; None where none comes for too long."""
    assert process.stdout is not None
    with process.stdout, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(LIMIT):
            if not (line := process.stdout.readline()):
                return
            yield json.loads(line)
        yield None


def names_what_is_wrong(found: dict[str, Any]) -> bool:
    """Return True if an error names the file or the graph.

    Weights that were mutated may be any numbers, and what they overflow in names the utterance and the step instead.
    """
    overflown = found["kind"] == "GenerationError" and "are not finite for utterance 0" in found["said"]
    return overflown or found["graph"] in found["said"]


@pytest.mark.parametrize("tries", [TRIES, pytest.param(MANY, marks=pytest.mark.full)])
def test_a_mutated_graph_is_refused_or_answers(tries: int, whole: Path, tmp_path: Path) -> None:
    found = tried(whole, tmp_path / "work", tries)
    assert len(found) == tries
    print(Counter(each["kind"] for each in found.values()))  # noqa: T201 - pytest shows it where the test fails
    bad = {
        number: each
        for number, each in found.items()
        if each["kind"] in ("traceback", "hang")
        or each["kind"].startswith("ended")
        or not each["refused by hash"]
        or (each["kind"] != "answer" and not names_what_is_wrong(each))
    }
    assert not bad, json.dumps(bad, indent=2)
