"""Test exports killed while they replace a bundle: the old or the new one is there, perhaps only after the next run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faults import publisher
from faults.publisher import content
from speech_export.bundle_writer.staging import staged
from speech_runtime.atomic.writing import collect

TRIES, MANY = 100, 3000


def kill_at_random(target: Path, tries: int, number: signal.Signals, *kind: str) -> dict[str, int]:
    """Return how many of `tries` killed publishers left a bundle at the target, and how many did not."""
    command = [sys.executable, publisher.__file__, str(target), str(tries), str(int(number)), *kind]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("tries", [TRIES, pytest.param(MANY, marks=pytest.mark.full)])
def test_out_is_never_missing_where_directories_can_be_exchanged(
    number: signal.Signals, tries: int, tmp_path: Path
) -> None:
    assert kill_at_random(tmp_path / "bundle", tries, number) == {"there": tries, "missing": 0}


@pytest.mark.parametrize("tries", [TRIES, pytest.param(MANY, marks=pytest.mark.full)])
def test_out_is_back_at_the_next_run_where_they_cannot(tries: int, tmp_path: Path) -> None:
    assert sum(kill_at_random(tmp_path / "bundle", tries, signal.SIGKILL, "plain").values()) == tries


def test_between_the_two_renames(tmp_path: Path) -> None:
    """The state after such a kill is made by hand: the next run puts the old bundle back, whatever it does."""
    target, container = tmp_path / "bundle", tmp_path / ".bundle.abcd1234.partial"
    for name in ("old", "new"):
        (container / name).mkdir(parents=True)
        (container / name / "bundle.json").write_text(content(0 if name == "old" else 1))
    (container / "lock").write_text("")
    with pytest.raises(RuntimeError), staged(target, overwrite=True):
        raise RuntimeError
    assert (target / "bundle.json").read_text() == content(0)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_containers_of_the_living_and_of_others_are_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "a"
    others = [".a.b.abcd1234.partial", ".ab.abcd1234.partial", ".a.abcd1234.partial.mine", ".a.thesis.partial"]
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").write_text("")
    with staged(target, overwrite=False) as living:
        (living / "half").write_text("")
        collect(target)
        assert (living / "half").exists()
        with staged(tmp_path / "a.b", overwrite=False) as other:
            (other / "bundle.json").write_text("{}")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.b", *others[1:]}
