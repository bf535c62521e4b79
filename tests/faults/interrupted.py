"""Run a command in a process of its own, and interrupt it at a random moment."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """The exit code and output of a process."""

    code: int
    stdout: str
    stderr: str
    was_running: bool


def command(name: str, *arguments: object) -> list[str]:
    """The command `transcribe`, `export` or `bench`, as it is installed."""
    start = f"from speech_runtime.cli.commands import {name}; {name}()"
    return [sys.executable, "-c", start, *map(str, arguments)]


def interrupt(arguments: Sequence[str], number: signal.Signals, seconds: float) -> Ended:
    """Run a command, and send it a signal after so many seconds; one that has ended gets none."""

    def heed() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs are told to ignore it

    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    time.sleep(seconds)
    was_running = process.poll() is None
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    return Ended(process.returncode, stdout, stderr, was_running)


def interrupt_at_random(
    arguments: Sequence[str], tries: int, longest: float, check: Callable[[Ended], bool], shortest: float = 0.0
) -> Counter[int]:
    """Interrupt a command so many times between two moments; how often it ended with which code.

    `check` checks what it left, and returns true if that is all it had to do: only then may it exit with 0.
    """
    codes: Counter[int] = Counter()
    moments = random.Random(tries)  # noqa: S311 - of a test
    for i in range(tries):
        number = (signal.SIGINT, signal.SIGTERM)[i % 2]
        ended = interrupt(arguments, number, moments.uniform(shortest, longest))
        if ended.code == 1 and "init_import_site" in ended.stderr:  # Python itself, before the command's first line
            assert not ended.stdout, ended
        else:
            # Before the first line of the command, and after its last, Python may also be ended by the signal.
            assert ended.code in ((0, 128 + number, -number) if ended.was_running else (0,)), ended
            assert "Traceback" not in ended.stderr or ended.code == -number, ended.stderr[-2000:]
        assert check(ended) or ended.code != 0, ended
        codes[ended.code] += 1
    return codes
