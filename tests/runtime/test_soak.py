"""Test that 1,000 utterances of any length, with many settings, do not grow the memory of a process."""

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY, Pair

WARM_UP, ROUNDS, UTTERANCES = 3, 10, 100
MOST_KIB = 4096  # of a thousand utterances: 4 KiB of each would be seen; half a second of encoder output is 10 KiB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read from /proc")
@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.full), 4])
def test_memory_does_not_grow(digits: Pair, references: dict[Path, str], threads: int) -> None:
    script, rounds = REPOSITORY / "tools" / "soak.py", WARM_UP + ROUNDS
    command = [sys.executable, script, digits.directory, threads, rounds, UTTERANCES, *references]
    printed = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True).stdout
    *_, warm = (resident := [int(line) for line in printed.split()])[:WARM_UP]
    assert len(resident) == rounds
    assert resident[-1] - warm <= MOST_KIB, resident
