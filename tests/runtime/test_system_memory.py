"""Test the peak memory of this process, in bytes on every system."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from handmade_bundle import make_bundle
from speech_runtime.system import memory_limit_bytes, peak_rss_bytes

MIB = 2**20


def test_the_peak_grows_with_what_is_touched_and_stays() -> None:
    code = (
        "import numpy as np; from speech_runtime.system import peak_rss_bytes; before = peak_rss_bytes(); "
        "block = np.ones(200 * 2**20, np.uint8); del block; print(before, peak_rss_bytes())"
    )
    before, after = map(int, subprocess.check_output([sys.executable, "-c", code]).split())
    assert before < 200 * MIB < after < before + 220 * MIB


def test_a_small_process_of_a_large_one_is_small() -> None:
    block = np.ones(300 * MIB, dtype=np.uint8)
    code = "from speech_runtime.system import peak_rss_bytes; print(peak_rss_bytes())"
    assert int(subprocess.check_output([sys.executable, "-c", code])) < block.size


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_proc_the_unit_is_the_systems(platform: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "Name: python\n")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=7000))
    assert peak_rss_bytes() == 7000 * unit


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/app.slice/one", {"app.slice/one/memory.max": "300000000\n"}, 300_000_000),
        (
            "0::/app.slice/one",
            {"app.slice/one/memory.max": "max\n", "app.slice/memory.max": "200000000\n"},
            200_000_000,
        ),
        ("0::/", {"memory.max": "100000000\n"}, 100_000_000),
        ("0::/../host/path", {"memory.max": "150000000\n"}, 150_000_000),
        ("7:cpu:/\n4:memory:/docker/a\n0::/", {"memory/docker/a/memory.limit_in_bytes": "120000000\n"}, 120_000_000),
        ("4:memory:/docker/a", {"memory/memory.limit_in_bytes": "110000000\n"}, 110_000_000),  # in a container
        ("4:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/a:b", {"a:b/memory.max": "90000000"}, 90_000_000),
        ("0::/one", {}, None),
        ("7:cpu:/one", {"cpu/one/memory.max": "1"}, None),
    ],
)
def test_the_limit_of_the_control_group_counts(
    groups: str, limits: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    write(tmp_path / "proc/self/cgroup", groups + "\n")
    for name, content in limits.items():
        write(tmp_path / "sys/fs/cgroup" / name, content)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_limit_bytes(tmp_path) == (expected or machine)


def test_without_control_groups_the_machine_limits(tmp_path: Path) -> None:
    assert memory_limit_bytes(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def in_little_memory(code: str, more: int) -> str:
    """Run code in a process whose address space may grow by so many MiB after it calls `limit()`."""
    before = (
        "import resource; from speech_runtime.system import _status_bytes, free_memory_bytes\n"
        "def limit():\n"
        f"    most = _status_bytes('VmSize') + {more} * 2**20\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
    )
    return subprocess.check_output([sys.executable, "-c", before + code], text=True)


def test_the_limit_of_the_address_space_counts() -> None:
    free = int(in_little_memory("limit(); print(free_memory_bytes())", 300))
    assert 250 * MIB < free <= 300 * MIB


def test_a_graph_that_needs_more_is_refused_and_the_next_one_runs(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    code = f"""
import sys
import numpy as np
from speech_runtime import Bundle, SessionOptions
from speech_runtime.bundle.graph_io import ENCODER, ENCODER_HIDDEN_STATES
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.errors import EngineMemoryError
import onnxruntime
limit()
options = SessionOptions(intra_op_threads=1, log_severity="fatal", device="cpu")
backend = OnnxRuntimeBackend(Bundle.open({str(tmp_path / "bundle")!r}), options)
def rows(count):
    inputs = dict.fromkeys(["input_values", "attention_mask"], backend.upload(np.ones((count, 32), np.float32)))
    return backend.run(ENCODER, inputs, [ENCODER_HIDDEN_STATES])[ENCODER_HIDDEN_STATES].shape()
for count in (10, 600_000, 10):
    try:
        print(rows(count))
    except EngineMemoryError as error:
        print(error)
"""
    first, refused, last = in_little_memory(code, 200).splitlines()
    assert first == last == "[10, 32]"
    assert (
        "encoder needs more memory than is left (ulimit -v and a container's limit count); try fewer clips" in refused
    )
