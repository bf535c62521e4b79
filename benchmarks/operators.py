"""Measure the time of a graph by operator, with ONNX Runtime's own profile of the int8 encoder and step."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from speech_runtime.backends.onnxruntime.sessions import SLOW_FUSIONS
from speech_runtime.backends.tensorrt.profiles import WAVEFORM_RATE
from speech_runtime.bundle.graph_io import PAST_LENGTH

_SECONDS, _FRAMES, _BEAMS, _PAST, _ROOM = 10, 63, 5, 40, 64
_SIZES = {
    "samples": _SECONDS * WAVEFORM_RATE,
    "frames": _FRAMES,
    "beams": _BEAMS,
    "past_beams": _BEAMS,
    "rows": _BEAMS,
    "past": _PAST,
    "room": _ROOM,
}
"""Sizes of dynamic dimensions, by their names in the graphs; all others are 1."""
_RUNS, _WARMUPS = 12, 3
_CONTROL_FLOW = ("If", "Loop", "Scan")
"""They take as long as what is in them, which is counted by itself."""


@dataclass(frozen=True)
class Operator:
    """One kind of operator in one graph: how many there are, and the milliseconds that all of them take in a run."""

    kind: str
    count: int
    milliseconds: float


def operators(path: Path, threads: int) -> list[Operator]:
    """Profile the graph at `path` on noise: ten seconds of audio, or a step of five beams after forty tokens.

    Returns:
        Means over some runs, the most expensive kind first.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("optimization.disable_specified_optimizers", SLOW_FUSIONS)
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        binding = _bound(session)
        for _ in range(_RUNS):
            session.run_with_iobinding(binding)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _by_kind(events)


def _bound(session: onnxruntime.InferenceSession) -> Any:
    """All inputs; and all outputs but those that a search leaves where they are, which are the inputs' memory."""
    binding, random = session.io_binding(), np.random.default_rng(0)
    outputs = {node.name for node in session.get_outputs()}
    in_place = any(node.name == PAST_LENGTH for node in session.get_inputs())
    for node in session.get_inputs():
        shape = [size if isinstance(size, int) else _SIZES.get(size, 1) for size in node.shape]
        if node.type == "tensor(float)":
            array: Any = random.standard_normal(shape, dtype=np.float32)
        else:
            array = np.full(shape, _PAST if node.name == PAST_LENGTH else 1)
        value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        binding.bind_ortvalue_input(node.name, value)
        present = node.name.replace("past.", "present.", 1)
        if in_place and node.name.startswith("past."):
            binding.bind_ortvalue_output(present, value)
            outputs.remove(present)
    if "top_ids" in outputs:
        outputs.remove("logits")
    for name in outputs:
        binding.bind_output(name)
    return binding


def _by_kind(events: Sequence[Mapping[str, Any]]) -> list[Operator]:
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    runs = sum(1 for event in events if event.get("name") == "model_run")
    per_run = len(kernels) // runs
    counted, times = dict[str, int](), dict[str, float]()
    for event in kernels[_WARMUPS * per_run :]:
        kind = event["args"]["op_name"]
        if kind not in _CONTROL_FLOW:
            counted[kind] = counted.get(kind, 0) + 1
            times[kind] = times.get(kind, 0.0) + event["dur"] / 1000
    kept = runs - _WARMUPS
    found = [Operator(kind, counted[kind] // kept, total / kept) for kind, total in times.items()]
    return sorted(found, key=lambda operator: operator.milliseconds, reverse=True)
