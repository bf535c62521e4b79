"""One measurement in its own process, `python -m speech_runtime.bench.worker`, with JSON on stdin and stdout."""

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
"""Arguments of Python that start a worker."""


@dataclass(frozen=True)
class Order:
    """A measurement that a worker reads from stdin."""

    bundle: str
    case: Case
    options: BenchOptions


def measure_apart(order: Order) -> Measurement:
    """Measure in a new process, so that its peak memory is that of this case alone.

    Raises:
        BenchError: The case failed, or the process was killed.
    """
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, *COMMAND], input=json.dumps(asdict(order)), capture_output=True, text=True, check=False
    )
    where = f"{order.bundle}, {order.case}"
    if done.returncode < 0:
        raise BenchError(
            f"{where}: the process was killed by signal {-done.returncode}, most likely for lack of memory; measure "
            "shorter audio or smaller batches"
        )
    if done.returncode:
        raise BenchError(f"{where}: the process failed:\n{done.stderr.strip()}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise BenchError(f"{where}: {answer['error']}")
    return from_json(Measurement, answer["measurement"])


def main() -> None:
    """Measure the order on stdin, and write one line to stdout: the measurement, or the error."""
    order = from_json(Order, json.loads(sys.stdin.read()))
    answer: dict[str, Any]
    try:
        answer = {"measurement": asdict(measure(order.bundle, order.case, order.options))}
    except SpeechError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
