"""Peak memory: of this process, in bytes, on every system."""

import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from speech_runtime.memory import peak_rss_bytes

MIB = 2**20


def test_the_peak_grows_with_what_is_touched_and_stays() -> None:
    code = (
        "import numpy as np; from speech_runtime.memory import peak_rss_bytes; before = peak_rss_bytes(); "
        "block = np.ones(200 * 2**20, np.uint8); del block; print(before, peak_rss_bytes())"
    )
    before, after = map(int, subprocess.check_output([sys.executable, "-c", code]).split())
    assert before < 200 * MIB < after < before + 220 * MIB


def test_a_small_process_of_a_large_one_is_small() -> None:
    block = np.ones(300 * MIB, dtype=np.uint8)
    code = "from speech_runtime.memory import peak_rss_bytes; print(peak_rss_bytes())"
    assert int(subprocess.check_output([sys.executable, "-c", code])) < block.size


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_proc_the_unit_is_the_systems(platform: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "Name: python\n")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=7000))
    assert peak_rss_bytes() == 7000 * unit
