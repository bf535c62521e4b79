"""Ranges of the tensors in a float32 graph on real input, and the nodes whose numbers half precision cannot hold.

Nodes in the graph reduce each float tensor to three numbers, so it takes only the memory of one run, however long the
audio is. (Searching a half-precision graph for infinities would miss some: a softmax or a normalisation absorbs them,
and its output looks like any other.)
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from speech_runtime.bundle.loading import Bundle

from ..errors import ExportError
from ..passes.half.convert import HALF
from ..passes.half.float32_nodes import FLOAT, MOVES, floats, reads_shape_only
from ..passes.half.masks import mask_nodes
from .calibration import ModelInput, record

_HEADROOM = 4.0
"""Factor by which other audio may be louder than the audio that was measured."""
_LARGEST = float(np.finfo(np.float16).max) / _HEADROOM
_ROUNDING = 2.0**-9
"""Four times the largest relative error of rounding to 11 bits; above it, most numbers are too small for half."""
_SUFFIX = ".measured"
_ERRORS = 3
"""Level of ONNX Runtime's log."""
_SUMS = frozenset({"Add", "Sub"})
_BLOCK = 2**22
"""Numbers of a weight to measure at a time: in float64, a whole table of words would exceed the model's memory."""


@dataclass(frozen=True)
class ValueRange:
    """The range of a tensor over all runs.

    Attributes:
        largest: Largest magnitude.
        total: Sum of all magnitudes.
        lost: Sum of the errors of rounding them to half.
    """

    largest: float = 0.0
    total: float = 0.0
    lost: float = 0.0

    @property
    def overflows(self) -> bool:
        """True if it exceeds the range of half, with some headroom; true for NaN."""
        return not self.largest <= _LARGEST

    @property
    def underflows(self) -> bool:
        """True if most of its numbers are too small for half."""
        return self.largest > 0 and not self.lost <= _ROUNDING * self.total

    def __or__(self, other: "ValueRange") -> "ValueRange":
        """Return the range of both together; NaN if either is."""
        largest = float(np.maximum(self.largest, other.largest))
        return ValueRange(largest, self.total + other.total, self.lost + other.lost)

    @classmethod
    def of(cls, array: NDArray[Any]) -> "ValueRange":
        """Return the range of a float32 array."""
        found, numbers = cls(), array.reshape(-1)
        for start in range(0, numbers.size, _BLOCK):
            found |= cls._of_block(numbers[start : start + _BLOCK])
        return found

    @classmethod
    def _of_block(cls, numbers: NDArray[Any]) -> "ValueRange":
        magnitudes = np.abs(numbers.astype(np.float64))
        with np.errstate(over="ignore", invalid="ignore"):
            lost = np.abs(numbers.astype(np.float16) - numbers.astype(np.float64))
        return cls(float(magnitudes.max()), float(magnitudes.sum()), float(lost.sum()))


@dataclass(frozen=True)
class OutOfRange:
    """A node that half precision cannot compute.

    Attributes:
        node: Name of the node.
        op_type: Operator of the node.
        value: Name of the tensor out of range, an input or output of the node.
        largest: Largest magnitude measured in the tensor.
        reason: "too large" or "too small".
    """

    node: str
    op_type: str
    value: str
    largest: float
    reason: str

    def __str__(self) -> str:
        return f"{self.op_type} {self.node}: {self.value} is {self.reason}, {self.largest:.3g} at most"


class RangeMeter:
    """Runs a graph and measures every float32 tensor in it, weights and inputs too."""

    def __init__(self, path: Path) -> None:
        """Load a graph and add the nodes that measure it.

        Args:
            path: ONNX file, its weights beside it.
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
        """Run the graph on the inputs `feed`."""
        for name, array in feed.items():
            if array.dtype == np.float32:
                self._widen(name, ValueRange.of(array))
        for name, numbers in zip(self._names, self._session.run(self._names, dict(feed)), strict=True):
            largest, total, lost = numbers
            empty = total == 0  # All zeros, or an empty tensor, which has no largest number.
            seen = ValueRange() if empty else ValueRange(float(largest), float(total), float(lost))
            self._widen(name.removesuffix(_SUFFIX), seen)

    @property
    def ranges(self) -> dict[str, ValueRange]:
        """Ranges over all runs, by the names of tensors. A tensor that is copied from others has their range."""
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
    """Return the ranges of the tensors in each of `graphs` while the float32 `bundle` transcribes `calibration`.

    Raises:
        ExportError: `calibration` is empty.
    """
    meters = {graph: RangeMeter(bundle.path(f"{graph}.onnx")) for graph in graphs}
    measured = False
    for feeds in record(bundle, calibration):
        measured = True
        for graph, meter in meters.items():
            for feed in feeds[graph]:
                meter.add(feed)
    if not measured:
        raise ExportError(
            "tensor ranges are measured on audio, and there is none; give at least one clip (--calibration-audio DIR)"
        )
    return {graph: meter.ranges for graph, meter in meters.items()}


def nodes_out_of_range(
    graph: ir.Graph, ranges: Mapping[str, ValueRange], float32: Collection[ir.Node] = ()
) -> list[OutOfRange]:
    """Return the nodes that read or write a tensor out of half's range.

    Args:
        graph: Float32 graph that was measured.
        ranges: Ranges of its tensors, by name.
        float32: Nodes that stay float32 anyway.
    """
    hiding = mask_nodes(graph)
    nodes = (node for node in graph if node not in float32 and node not in hiding and not reads_shape_only(node))
    masks = {value for node in hiding for value in node.outputs}
    return [found for node in nodes if (found := _problem(node, ranges, masks)) is not None]


def _instrument(model: ir.Model) -> dict[str, list[str]]:
    """Make the three numbers of each float tensor the outputs of `model`.

    Returns:
        The names of the tensors that are only copied, and for each the names of the tensors that it is copied from.
    """
    graph, copies = model.graph, {}
    original = list(graph)
    graph.outputs.clear()
    for node in original:
        for value in floats(node.outputs):
            if node.op_type in MOVES:
                copies[str(value.name)] = [str(source.name) for source in _measured(node)]
            else:
                graph.outputs.append(_measure(graph, value))
    return copies


def _measure(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Return `largest`, `total` and `lost` of `value` as one output float32 [3]."""
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
    assert producer is not None  # noqa: S101 - the value is a node's output
    graph.insert_after(producer, added)
    return measured


def _session(model: ir.Model, weights: Path) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    # Prepacking copies the weights, which does not pay off in a few runs.
    settings.add_session_config_entry("session.disable_prepacking", "1")
    # Fused nodes would hide the tensors between them.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.enable_mem_pattern = False
    settings.log_severity_level = _ERRORS  # TensorScatter warns that it does not write in place, which it need not here
    # Run in the order of the file, where each tensor is measured directly after it is made; in the default order all
    # tensors would wait in memory until the end of the run.
    settings.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    proto = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(proto, settings, providers=["CPUExecutionProvider"])


def _problem(node: ir.Node, ranges: Mapping[str, ValueRange], masks: Collection[ir.Value]) -> OutOfRange | None:
    """Return the first tensor of `node` that is out of range, apart from `masks`."""
    for value in (*_measured(node), *floats(node.outputs)):
        if value in masks:
            continue
        seen = ranges[str(value.name)]
        if seen.overflows or (seen.underflows and not _is_small_addend(node, value)):
            reason = "too large" if seen.overflows else "too small"
            return OutOfRange(str(node.name), node.op_type, str(value.name), seen.largest, reason)
    return None


def _measured(node: ir.Node) -> list[ir.Value]:
    """Return the float32 inputs of `node` but for the number that a Pad adds, which may be an infinity."""
    return floats(node.inputs[:1] if node.op_type == "Pad" else node.inputs)


def _is_small_addend(node: ir.Node, value: ir.Value) -> bool:
    """Return true for a tensor that is only added to another, but not for an epsilon, a single number that avoids 0."""
    epsilon = value.is_initializer() and value.const_value is not None and value.const_value.size == 1
    return node.op_type in _SUMS and not epsilon and value not in node.outputs
