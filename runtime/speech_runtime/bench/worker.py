"""One measurement in a process of its own: `python -m speech_runtime.bench.worker`, JSON in and JSON out."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from ..dataclass_json import from_json
from ..errors import BenchError, SpeechError
from .measure import Measurement, measure
from .options import BenchOptions, Case

COMMAND = ("-m", "speech_runtime.bench.worker")
"""How Python is told to be a worker."""


@dataclass(frozen=True)
class Order:
    """What a worker is told on stdin."""

    bundle: str
    case: Case
    options: BenchOptions


def measure_apart(order: Order) -> Measurement:
    """Measure in a process of its own, so that its peak memory is that of this case alone.

    Raises:
        BenchError: the case failed there, or the process was killed.
    """
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, *COMMAND], input=json.dumps(asdict(order)), capture_output=True, text=True, check=False
    )
    where = f"{order.bundle}, {describe(order.case)}"
    if done.returncode < 0:
        raise BenchError(
            f"{where}: the process was killed by signal {-done.returncode}, most likely for want of memory; measure "
            "shorter audio or smaller batches"
        )
    if done.returncode:
        raise BenchError(f"{where}: the process failed:\n{done.stderr.strip()}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise BenchError(f"{where}: {answer['error']}")
    return from_json(Measurement, answer["measurement"])


def describe(case: Case) -> str:
    """A case in words."""
    threads = f"{case.threads} threads" if case.threads else "all cores"
    return f"{case.seconds:g} s × {case.batch}, {case.beams} beams, {case.tokens} tokens, {threads}"


def main() -> None:
    """Measure what stdin says; one line on stdout: the measurement, or why there is none."""
    order = from_json(Order, json.loads(sys.stdin.read()))
    answer: dict[str, Any]
    try:
        answer = {"measurement": asdict(measure(order.bundle, order.case, order.options))}
    except SpeechError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
