"""Half precision: weights and computation in float16, and casts around the nodes that stay float32.

No node mixes the two types, so a graph of standard ONNX is a strongly typed network for TensorRT.
`round_explicitly` makes a copy that rounds on a CPU as a GPU does.
"""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from .float32_nodes import FLOAT, MOVES, float32_nodes, floats, reads_shape_only
from .kernels import STANDARD, HalfKernels
from .separate_sums import separate_sums

HALF = ir.DataType.FLOAT16


def to_half(
    model: ir.Model,
    keep_float32: Collection[str] = (),
    float32_interface: Collection[str] = (),
    kernels: HalfKernels = STANDARD,
) -> None:
    """Convert a float32 graph to half precision, in place.

    Args:
        model: Traced graph without subgraphs.
        keep_float32: Names of nodes that compute in float32, besides those that always do (`float32_nodes`).
        float32_interface: Names of inputs and outputs that stay float32; all others become float16.
        kernels: Half-precision kernels of the target.
    """
    graph = model.graph
    single = float32_nodes(graph, keep_float32, float32_interface, kernels)
    nodes = [node for node in graph if not reads_shape_only(node)]
    for weight in list(graph.initializers.values()):
        if weight.dtype == FLOAT:
            _convert_weight(graph, weight, single)
    half = [value for value in graph.inputs if value.dtype == FLOAT and value.name not in float32_interface]
    half += [value for node in nodes if node not in single for value in floats(node.outputs)]
    for value in half:
        value.type = ir.TensorType(HALF)
    casts = _Casts(graph)
    for node in nodes:
        wanted = FLOAT if node in single else HALF
        for value in dict.fromkeys(
            value for value in node.inputs if value is not None and value.dtype in (FLOAT, HALF)
        ):
            if value.dtype != wanted:
                casts.cast_input(node, value)
    for position, value in enumerate(graph.outputs):
        wanted = FLOAT if value.name in float32_interface else HALF
        if value.dtype in (FLOAT, HALF) and value.dtype != wanted:
            casts.cast_output(position)


def round_explicitly(model: ir.Model) -> None:
    """Let a half-precision graph compute on a CPU what a GPU computes, in place; inputs and outputs stay as they are.

    ONNX Runtime has hardly any half-precision kernels for CPUs. It computes such a graph in float32 and removes the
    casts between the nodes: nothing is rounded, nothing overflows, and every half-precision graph looks right. After
    this pass each node computes in float32, as a GPU accumulates, and a cast rounds its result to half. A sum within a
    fused operator is rounded too, as its kernel rounds it.

    Run the graph without graph optimisations, which may remove the casts again.

    Args:
        model: Graph from `to_half`.
    """
    separate_sums(model)
    casts = _Casts(model.graph)
    for node in list(model.graph):
        if node.op_type in MOVES or node.op_type == "Cast" or reads_shape_only(node):
            continue
        for value in dict.fromkeys(value for value in node.inputs if value is not None and value.dtype == HALF):
            casts.cast_input(node, value)
        for value in node.outputs:
            if value.dtype == HALF:
                casts.round(value)
    for name, weight in list(model.graph.initializers.items()):
        if not weight.uses():
            del model.graph.initializers[name]


def _convert_weight(graph: ir.Graph, value: ir.Value, single: Collection[ir.Node]) -> None:
    """Convert a weight to half for its readers outside `single`; keep the float32 weight if it has other readers."""
    for_half = [use for use in value.uses() if use.node not in single]
    if not for_half:
        return
    name = str(value.name)
    if len(for_half) == len(value.uses()):
        del graph.initializers[name]
    else:
        name = f"{name}.half"
    half = _weight_as(value, HALF, name)
    for use in for_half:
        use.node.replace_input_with(use.idx, half)
    graph.initializers[name] = half


def _weight_as(value: ir.Value, to: ir.DataType, name: str) -> ir.Value:
    """Return a weight in another dtype, within its range: a number that hides keys stays finite.

    It is converted when it is written, so that memory holds it only once.
    """
    weight = value.const_value
    assert weight is not None  # noqa: S101 - an initializer has a value

    def converted() -> ir.Tensor:
        numbers = weight.numpy()
        with np.errstate(over="ignore"):
            rounded = np.asarray(numbers.astype(to.numpy()))
        if np.isinf(rounded).any():
            limits = np.finfo(to.numpy())
            rounded = np.where(np.isinf(numbers), rounded, np.clip(rounded, limits.min, limits.max))
        return ir.Tensor(rounded, name=name)

    numbers = ir.LazyTensor(
        converted,
        dtype=to,
        shape=ir.Shape(weight.shape),
        name=name,
    )
    return ir.Value(name=name, shape=value.shape, type=ir.TensorType(to), const_value=numbers)


class _Casts:
    """The casts between float32 and float16 in a graph, one for each value: those already there and new ones."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[ir.Value, ir.Value] = {}
        for node in graph:
            if node.op_type == "Cast" and {node.inputs[0].dtype, node.outputs[0].dtype} == {FLOAT, HALF}:
                self._made[node.inputs[0]] = node.outputs[0]

    def cast(self, value: ir.Value) -> ir.Value:
        """Return `value`, float32 or float16, as the other of the two. The cast follows directly after its producer."""
        if value not in self._made:
            to = HALF if value.dtype == FLOAT else FLOAT
            name = f"{value.name}.{'half' if to == HALF else 'single'}"
            if value.is_initializer():
                self._made[value] = self._graph.initializers[name] = _weight_as(value, to, name)
                return self._made[value]
            node = ir.node("Cast", [value], {"to": to}, name=f"{name}/Cast")
            (output,) = node.outputs
            output.name, output.shape, output.type = name, value.shape, ir.TensorType(to)
            producer = value.producer()
            if producer is None:
                self._graph.insert_before(self._graph[0], node)
            else:
                self._graph.insert_after(producer, node)
            self._made[value] = output
        return self._made[value]

    def cast_input(self, node: ir.Node, value: ir.Value) -> None:
        """Let `node` read `value` in the other type."""
        cast = self.cast(value)
        for position, given in enumerate(node.inputs):
            if given is value:
                node.replace_input_with(position, cast)

    def cast_output(self, position: int) -> None:
        """Let an output of the graph have the other type, under the same name."""
        value = self._graph.outputs[position]
        cast, name = self.cast(value), value.name
        value.name, cast.name = f"{name}.{'half' if value.dtype == HALF else 'single'}", name
        self._graph.outputs[position] = cast

    def round(self, value: ir.Value) -> None:
        """Make a float16 value float32, and let a cast of it to float16 take over its name and its readers."""
        readers, as_float = value.uses(), self._made.pop(value, None)
        value.type = ir.TensorType(FLOAT)
        cast, name = self.cast(value), value.name
        for use in readers:
            use.node.replace_input_with(use.idx, cast)
        value.name, cast.name = f"{name}.unrounded", name
        if as_float is not None:
            self._made[cast] = as_float
        for position, output in enumerate(self._graph.outputs):
            if output is value:
                self._graph.outputs[position] = cast
