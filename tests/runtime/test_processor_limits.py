"""Test how many threads are used where a container or the user allows fewer than the machine has."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import Pair
from speech_runtime.backends.onnxruntime.threads import ONNXRUNTIMES_CHOICE, operator_threads
from speech_runtime.system import usable_cpus

MANY = frozenset(range(64))


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/pod", {"pod/cpu.max": "200000 100000\n"}, 2),
        ("0::/pod", {"pod/cpu.max": "150000 100000\n"}, 1),
        ("0::/pod", {"pod/cpu.max": "20000 100000\n"}, 1),
        ("0::/pod", {"pod/cpu.max": "max 100000\n"}, 64),
        ("0::/pod/one", {"pod/one/cpu.max": "800000 100000\n", "pod/cpu.max": "300000 100000\n"}, 3),
        ("0::/../host/path", {"cpu.max": "400000 100000\n"}, 4),  # in a container
        ("3:cpu,cpuacct:/a\n0::/", {"cpu,cpuacct/a/cpu.cfs_quota_us": "500000\n"}, 5),
        ("3:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1\n"}, 64),
        ("3:cpuset:/a", {"cpuset/a/cpu.cfs_quota_us": "500000\n"}, 64),
        ("0::/pod", {"pod/cpu.max": "\n"}, 64),
        ("0::/pod", {}, 64),
    ],
)
def test_the_quota_of_a_control_group_counts(
    groups: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: MANY)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups + "\n")
    for name, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        if name.endswith("quota_us"):
            (path.parent / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cpus(tmp_path) == expected


@pytest.mark.parametrize(
    ("variable", "usable", "chosen", "expected"),
    [
        ("", 64, 0, ONNXRUNTIMES_CHOICE),
        ("", 2, 0, 2),
        ("", 2, 7, 7),
        ("3", 64, 0, 3),
        ("3", 2, 0, 3),
        ("3,1", 64, 0, 3),
        ("3", 64, 7, 7),
        ("0", 2, 0, 2),
        ("many", 2, 0, 2),
    ],
)
def test_the_number_of_threads(
    variable: str, usable: int, chosen: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    monkeypatch.setattr("speech_runtime.backends.onnxruntime.threads.usable_cpus", lambda: usable)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert operator_threads(chosen) == expected


@pytest.fixture
def one_processor() -> Iterator[Path]:
    """A control group that may keep one processor busy."""
    name = f"speech-{uuid.uuid4()}"
    files = {
        Path("/sys/fs/cgroup") / name: {"cpu.max": "100000 100000"},
        Path("/sys/fs/cgroup/cpu") / name: {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"},
    }
    for group, contents in files.items():
        if not (group.parent / "cgroup.procs").exists() or (os.cpu_count() or 1) == 1:
            continue
        with suppress(OSError):
            group.mkdir()
            for file, content in contents.items():
                (group / file).write_text(content)
            yield group
            group.rmdir()
            return
        with suppress(OSError):
            group.rmdir()
    pytest.skip("this machine has one processor, or lets no test make a control group")


def test_in_a_group_of_one_processor_one_thread_is_used(one_processor: Path, digits: Pair) -> None:
    code = f"""
import logging, os, sys
from pathlib import Path
Path({str(one_processor / "cgroup.procs")!r}).write_text(str(os.getpid()))
logging.basicConfig(level=logging.INFO)
from speech_runtime import OnnxSpeechSeq2Seq
OnnxSpeechSeq2Seq.from_pretrained(sys.argv[1])
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    ended = subprocess.run(
        [sys.executable, "-c", code, digits.directory], env=environment, capture_output=True, text=True, check=True
    )
    assert f"threads of one operator: 1, as this process may use that many of {os.cpu_count()}" in ended.stderr
