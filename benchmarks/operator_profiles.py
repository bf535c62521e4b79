"""Measure the time of each graph by operator on any device, with ONNX Runtime's own profile of one run.

    python benchmarks/operator_profiles.py BUNDLE DEVICE SECONDS BATCH BEAMS TOKENS

It prints JSON: operators by graph. ONNX Runtime notes how long it takes to launch a kernel; with
`CUDA_LAUNCH_BLOCKING=1` that includes the kernel itself.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from operators import Operator
from speech_runtime.backends.options import CudaOptions, SessionOptions, options_for
from speech_runtime.bench.audio import BenchAudio
from speech_runtime.bench.measure import fixed_length, import_libraries, load
from speech_runtime.bench.options import Case
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, ENCODER
from speech_runtime.bundle.loading import Bundle
from speech_runtime.dataclass_json import from_json

GRAPHS = (ENCODER, DECODER_WITH_PAST)
_RUNS = 3


def profiles(bundle: Path, device: str, case: Case) -> dict[str, list[Operator]]:
    """Profile the last of some runs of encoder and step, in a process of its own.

    Args:
        bundle: Bundle with the graphs.
        device: Device that runs them.
        case: Audio and beams.

    Returns:
        Operators of each graph, the most expensive kind first.

    Raises:
        RuntimeError: It failed; with the end of what it said.
    """
    command = [sys.executable, __file__, str(bundle), device, f"{case.seconds:g}", f"{case.batch}", f"{case.beams}"]
    command.append(f"{case.tokens}")
    environment = {**os.environ, "CUDA_LAUNCH_BLOCKING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 - ourselves
    if done.returncode:
        raise RuntimeError(f"the profile of {bundle} failed ({done.returncode}):\n{done.stderr.strip()[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {graph: [from_json(Operator, operator) for operator in operators] for graph, operators in found.items()}


def last_run(events: Sequence[Mapping[str, Any]]) -> list[Operator]:
    """Return the operators of the last run in a profile, the most expensive kind first."""
    begin = max(event["ts"] for event in events if event.get("name") == "model_run")
    counted, times = dict[str, int](), dict[str, float]()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= begin:
            kind = event["args"]["op_name"]
            counted[kind] = counted.get(kind, 0) + 1
            times[kind] = times.get(kind, 0.0) + event["dur"] / 1000
    found = [Operator(kind, counted[kind], total) for kind, total in times.items()]
    return sorted(found, key=lambda operator: operator.milliseconds, reverse=True)


def _profiled(bundle: Path, device: str, case: Case) -> dict[str, list[Operator]]:
    import_libraries(device)
    with tempfile.TemporaryDirectory() as folder:
        options = options_for(device)
        if not isinstance(options, SessionOptions):
            raise SystemExit(f"device {device!r} runs without ONNX Runtime, which makes the profiles")
        # A recorded step has no operators any more.
        cuda = CudaOptions(cuda_graphs=0) if options.device == "cuda" else CudaOptions()
        opened = Bundle.open(bundle, check_hashes=False)
        backend, generator = load(opened, replace(options, profile=folder, cuda=cuda))
        audio = BenchAudio(opened, None)
        inputs, mask = audio.model_input(audio.batch(case.seconds, case.batch))
        for _ in range(_RUNS):  # the first ones choose kernels and allocate memory
            generator.generate(inputs, mask, **fixed_length(case))
        del backend, generator
        gc.collect()  # the profiles are written when the sessions are closed
        paths = {graph: next(Path(folder).glob(f"{graph}_*.json")) for graph in GRAPHS}
        return {graph: last_run(json.loads(path.read_text(encoding="utf-8"))) for graph, path in paths.items()}


def main(arguments: Sequence[str]) -> None:
    """Print the operators of each graph as one line of JSON."""
    bundle, device, seconds, *counts = arguments
    found = _profiled(Path(bundle), device, Case(float(seconds), *map(int, counts)))
    content = {graph: [asdict(operator) for operator in operators] for graph, operators in found.items()}
    sys.stdout.write("\n" + json.dumps(content) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
