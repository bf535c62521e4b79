"""How large the numbers of a float32 graph are on real input, and how well half precision holds them.

Every float tensor is measured within the graph, by nodes that leave three numbers of it: so memory is that of a run,
whatever the length of the audio. (A search for infinities in a half-precision graph would not do: a softmax or a
normalisation absorbs them, and what comes out looks like any number.)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from speech_runtime.bundle.loading import Bundle

from ..errors import ExportError
from ..passes.half.casts import FLOAT, HALF
from ..passes.half.float32_nodes import MOVES, floats
from .calibration import ModelInput, record

_HEADROOM = 4.0
"""Audio that nobody measured may be so much louder."""
_LARGEST = float(np.finfo(np.float16).max) / _HEADROOM
_ROUNDING = 2.0**-9
"""Four times what rounding to 11 bits costs at most: above it, most of the numbers are too small for half."""
_SUFFIX = ".measured"
_AT_A_TIME = 2**22
"""Numbers of a weight: in float64 a table of words would take several times the memory of the model."""


@dataclass(frozen=True)
class ValueRange:
    """What was seen of a tensor.

    Attributes:
        largest: magnitude.
        total: sum of all magnitudes.
        lost: sum of what rounding to half takes from them.
    """

    largest: float = 0.0
    total: float = 0.0
    lost: float = 0.0

    @property
    def overflows(self) -> bool:
        """Whether half has no room for it, with some to spare; NaN has none."""
        return not self.largest <= _LARGEST

    @property
    def underflows(self) -> bool:
        """Whether most of it is too small for half."""
        return self.largest > 0 and not self.lost <= _ROUNDING * self.total

    def __or__(self, other: "ValueRange") -> "ValueRange":
        """Both together; NaN if either is."""
        largest = float(np.maximum(self.largest, other.largest))
        return ValueRange(largest, self.total + other.total, self.lost + other.lost)

    @classmethod
    def of(cls, array: NDArray[Any]) -> "ValueRange":
        """Measure a float32 array."""
        found, numbers = cls(), array.reshape(-1)
        for start in range(0, numbers.size, _AT_A_TIME):
            found |= cls._of_some(numbers[start : start + _AT_A_TIME])
        return found

    @classmethod
    def _of_some(cls, numbers: NDArray[Any]) -> "ValueRange":
        magnitudes = np.abs(numbers.astype(np.float64))
        with np.errstate(over="ignore", invalid="ignore"):
            lost = np.abs(numbers.astype(np.float16) - numbers.astype(np.float64))
        return cls(float(magnitudes.max()), float(magnitudes.sum()), float(lost.sum()))


class RangeMeter:
    """Runs a graph, and measures every float32 tensor in it, weights and inputs too."""

    def __init__(self, path: Path) -> None:
        """Put the measuring into the graph.

        Args:
            path: an ONNX file, its weights beside it.
        """
        model = ir.load(path)
        self._found = {
            name: ValueRange.of(value.const_value.numpy())
            for name, value in model.graph.initializers.items()
            if value.dtype == FLOAT and value.const_value is not None
        }
        self._copies = _instrument(model)
        self._session = _session(model, path.parent)
        self._names = [output.name for output in self._session.get_outputs()]

    def add(self, feed: Mapping[str, NDArray[Any]]) -> None:
        """Run the graph on its inputs `feed`."""
        for name, array in feed.items():
            if array.dtype == np.float32:
                self._widen(name, ValueRange.of(array))
        for name, numbers in zip(self._names, self._session.run(self._names, dict(feed)), strict=True):
            largest, total, lost = numbers
            empty = total == 0  # or zeros; an empty tensor has no largest number
            seen = ValueRange() if empty else ValueRange(float(largest), float(total), float(lost))
            self._widen(name.removesuffix(_SUFFIX), seen)

    @property
    def ranges(self) -> dict[str, ValueRange]:
        """Of all runs, by the names of tensors; what only copies others has their range."""
        found = dict(self._found)
        for name, sources in self._copies.items():
            found[name] = ValueRange()
            for source in sources:
                found[name] |= found.get(source, ValueRange())
        return found

    def _widen(self, name: str, seen: ValueRange) -> None:
        self._found[name] = self._found.get(name, ValueRange()) | seen


def measured_ranges(
    bundle: Bundle, graphs: Iterable[str], calibration: Iterable[ModelInput]
) -> dict[str, dict[str, ValueRange]]:
    """Ranges of the tensors of each of `graphs` when `bundle`, float32, transcribes `calibration`.

    Raises:
        ExportError: there is nothing to measure on.
    """
    meters = {graph: RangeMeter(bundle.path(f"{graph}.onnx")) for graph in graphs}
    measured = False
    for feeds in record(bundle, calibration):
        measured = True
        for graph, meter in meters.items():
            for feed in feeds[graph]:
                meter.add(feed)
    if not measured:
        raise ExportError("how large numbers get is measured on audio, and there is none; give one clip at least")
    return {graph: meter.ranges for graph, meter in meters.items()}


def _instrument(model: ir.Model) -> dict[str, list[str]]:
    """Make three numbers of each float tensor the outputs of `model`.

    Returns:
        The other float tensors, copies of parts of others, with the names of those.
    """
    graph, copies = model.graph, {}
    original = list(graph)
    graph.outputs.clear()
    for node in original:
        for value in floats(node.outputs):
            if node.op_type in MOVES:
                copies[str(value.name)] = [str(source.name) for source in floats(node.inputs)]
            else:
                graph.outputs.append(_measure(graph, value))
    return copies


def _measure(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Largest, total and lost of `value` as one output float32 [3]."""
    added: list[ir.Node] = []

    def node(op_type: str, inputs: list[ir.Value], **attributes: object) -> ir.Value:
        added.append(ir.node(op_type, inputs, attributes))
        return added[-1].outputs[0]

    def number(op_type: str, of: ir.Value) -> ir.Value:
        return node("Reshape", [node(op_type, [of], keepdims=0), one])

    one = node("Constant", [], value_ints=[1])
    magnitudes = node("Abs", [value])
    half = node("Cast", [node("Cast", [value], to=HALF)], to=FLOAT)
    lost = node("Abs", [node("Sub", [value, half])])
    measured = node(
        "Concat",
        [number("ReduceMax", magnitudes), number("ReduceSum", magnitudes), number("ReduceSum", lost)],
        axis=0,
    )
    measured.name, measured.shape, measured.type = f"{value.name}{_SUFFIX}", ir.Shape([3]), ir.TensorType(FLOAT)
    producer = value.producer()
    assert producer is not None  # noqa: S101 - it is some node's output
    graph.insert_after(producer, added)
    return measured


def _session(model: ir.Model, weights: Path) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    # A second copy of the weights, laid out for speed, is more than what few runs gain by it.
    settings.add_session_config_entry("session.disable_prepacking", "1")
    # Fused nodes would hide what is between them.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.enable_mem_pattern = False
    # In the order of the file, where a tensor is measured right after it was made; otherwise all would wait in memory
    # until the network has run.
    settings.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    proto = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(proto, settings, providers=["CPUExecutionProvider"])
