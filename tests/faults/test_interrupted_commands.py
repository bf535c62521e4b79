"""Test commands ended by Ctrl-C and SIGTERM at random moments: exit code 130 or 143, whole files, no traceback."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import CHECKPOINT, Pair
from faults.interrupted import Ended, command, interrupt_at_random
from speech_runtime import Bundle

TRIES, MANY = 12, 400
EXPORTS, MANY_EXPORTS = 2, 60


def seconds_of(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


@pytest.mark.parametrize("tries", [TRIES, pytest.param(MANY, marks=pytest.mark.full)])
def test_transcriptions_end_with_whole_json(tries: int, digits: Pair, references: dict[Path, str]) -> None:
    files = [*references] * 3

    def whole(ended: Ended) -> bool:
        entries = json.loads(ended.stdout) if ended.stdout else []
        assert [entry.get("text", entry) for entry in entries] == [references[file] for file in files[: len(entries)]]
        return len(entries) == len(files)

    arguments = command("transcribe", digits.directory, *files, "--format", "json", "--batch-size", 1, "--threads", 1)
    codes = interrupt_at_random(arguments, tries, 4.0, whole)
    assert codes.total() == tries


@pytest.mark.parametrize("tries", [EXPORTS, pytest.param(MANY_EXPORTS, marks=pytest.mark.full)])
def test_exports_leave_the_old_bundle(tries: int, digits: Pair, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    shutil.copytree(digits.directory, target)
    old = Bundle.open(target).manifest

    def whole(ended: Ended) -> bool:
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
        # An interrupt in the last moments comes when the new bundle is in place already, whole.
        assert Bundle.open(target).manifest == old or "verifying against torch … " in ended.stderr
        return "verified against torch" in ended.stdout

    arguments = command("export", CHECKPOINT, "-o", target, "--overwrite")
    assert interrupt_at_random(arguments, tries, 20.0, whole, shortest=1.0).total() == tries
