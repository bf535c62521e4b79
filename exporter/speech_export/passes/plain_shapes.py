"""Cheaper arithmetic on shapes and lengths.

Tracing computes the shape for each Reshape size by size, from the sizes of the graph's inputs: dozens of operations on
a few integers. In a small decoder they take a quarter of the time of a step. Here, sizes that are known to be equal
become constants, and others are read directly from the inputs.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, IdentityEliminationPass, RemoveUnusedNodesPass

from .patterns.projections import initializer

_MAY_BE_ZERO = ("past",)
"""Sizes that may be 0. A Reshape cannot infer another size (-1) beside them."""


def plain_shapes(model: ir.Model) -> None:
    """Simplify every Reshape whose sizes have names, and drop every Expand that broadcasting makes needless.

    Expressions that are then equal are computed once.
    """
    IdentityEliminationPass()(model)  # First: an Identity between two Reshapes hides one from the other.
    graph = model.graph
    _as_vectors(graph)
    sizes = _Sizes(graph)
    for node in list(graph):
        if node.op_type == "Expand" and (_changes_nothing(node) or _is_broadcast_anyway(node)):
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
        if node.op_type == "Reshape":
            _simplify(node, sizes)
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)


def _as_vectors(graph: ir.Graph) -> None:
    """Compute with vectors [1] where scalars are made from vectors [1] and are turned back into them."""
    vectors: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if node.op_type == "Squeeze" and node.inputs[0].shape is not None and list(node.inputs[0].shape) == [1]:
            vectors[node.outputs[0]] = node.inputs[0]
        elif node.op_type in ("Add", "Sub", "Mul") and all(value in vectors for value in node.inputs):
            vector = ir.node(node.op_type, [vectors[value] for value in node.inputs], name=f"{node.name}/vector")
            vector.outputs[0].name = f"{node.outputs[0].name}.vector"
            vector.outputs[0].shape, vector.outputs[0].type = ir.Shape([1]), node.outputs[0].type
            graph.insert_after(node, vector)
            vectors[node.outputs[0]] = vector.outputs[0]
        elif node.op_type == "Reshape" and node.inputs[0] in vectors and list(node.outputs[0].shape or ()) == [1]:
            ir.convenience.replace_all_uses_with(node.outputs[0], vectors[node.inputs[0]])


class _Sizes:
    """Sizes of the graph's inputs, by name; the graph reads each of them once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._inputs: dict[str, tuple[ir.Value, int]] = {}
        for value in graph.inputs:
            for axis, size in enumerate(value.shape):
                self._inputs.setdefault(str(size), (value, axis))
        self._read: dict[str, ir.Value] = {}
        self._shapes: dict[tuple[object, ...], ir.Value] = {}

    def knows(self, size: str) -> bool:
        """Return true if `size` is the name of a size of an input."""
        return size in self._inputs

    def shape(self, sizes: tuple[int | str, ...]) -> ir.Value:
        """Return the value of a shape that is given as numbers and names."""
        if sizes not in self._shapes:
            name = f"shape.{len(self._shapes)}"
            if all(isinstance(size, int) for size in sizes):
                self._shapes[sizes] = self._numbers(name, *sizes)
            else:
                parts = [
                    self._size(size) if isinstance(size, str) else self._numbers(f"{name}.{axis}", size)
                    for axis, size in enumerate(sizes)
                ]
                self._shapes[sizes] = self._first("Concat", name, *parts, axis=0)
        return self._shapes[sizes]

    def _numbers(self, name: str, *sizes: int | str) -> ir.Value:
        return initializer(self._graph, name, np.array(sizes, dtype=np.int64))

    def _size(self, size: str) -> ir.Value:
        if size not in self._read:
            value, axis = self._inputs[size]
            self._read[size] = self._first("Shape", f"size.{size}", value, start=axis, end=axis + 1)
        return self._read[size]

    def _first(self, op_type: str, name: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        """Add a node as early as its inputs allow, and return its output."""
        node = ir.node(op_type, inputs, attributes, name=name)
        node.outputs[0].name = name
        made_by = [value.producer() for value in inputs if value.producer() is not None]
        if made_by:
            self._graph.insert_after(max(made_by, key=list(self._graph).index), node)
        else:
            self._graph.insert_before(self._graph[0], node)
        return node.outputs[0]


def _simplify(node: ir.Node, sizes: _Sizes) -> None:
    source, output = node.inputs[0], node.outputs[0]
    while (before := source.producer()) is not None and before.op_type == "Reshape":
        source = before.inputs[0]
    if not _is_known(source.shape) or not _is_known(output.shape):
        return
    if _names(source.shape) == _names(output.shape) and _replace(node, source):
        return
    wanted = tuple(_wanted(source.shape, output.shape))
    unknown = [size for size in wanted if isinstance(size, str) and not sizes.knows(size)]
    if len(unknown) > 1 or (unknown and any(size in name for size in _MAY_BE_ZERO for name in _names(output.shape))):
        return
    node.attributes.pop("allowzero", None)  # A 0 means the size of the input here.
    node.replace_input_with(0, source)
    node.replace_input_with(1, sizes.shape(tuple(-1 if size in unknown else size for size in wanted)))


def _replace(node: ir.Node, source: ir.Value) -> bool:
    """Let all that reads the result of `node` read `source`, a graph's output too; return false if that cannot be."""
    output, name = node.outputs[0], node.outputs[0].name
    if not output.is_graph_output():
        ir.convenience.replace_all_uses_with(output, source)
        return True
    if source.producer() is None or source.is_graph_output():
        return False
    ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
    assert node.graph is not None  # noqa: S101 - the node was found in a graph
    node.graph.remove(node, safe=True)
    source.name = name
    return True


def _is_known(shape: ir.Shape | None) -> bool:
    return shape is not None and all(isinstance(size, int) or size.value is not None for size in shape)


def _names(shape: ir.Shape) -> list[str]:
    """Return the sizes as names. Two sizes of a traced graph are equal if their names are."""
    return [str(size) for size in shape]


def _wanted(source: ir.Shape, output: ir.Shape) -> Iterator[int | str]:
    """Yield the size of each axis as a Reshape takes it: a number, 0 for the size of its input, or a name."""
    for axis, size in enumerate(output):
        if isinstance(size, int):
            yield size
        elif axis < len(source) and str(source[axis]) == str(size):
            yield 0
        else:
            yield str(size)


def _changes_nothing(node: ir.Node) -> bool:
    """Return true if an Expand has an input of the shape that it expands to."""
    source, expanded = node.inputs[0], node.outputs[0]
    known = _is_known(source.shape) and _is_known(expanded.shape) and not expanded.is_graph_output()
    return known and _names(source.shape) == _names(expanded.shape)


def _is_broadcast_anyway(node: ir.Node) -> bool:
    """Return true if only Adds read an Expand, and their other term already has every size that it expands to."""
    source, expanded = node.inputs[0], node.outputs[0]
    if not _is_known(source.shape) or not _is_known(expanded.shape) or len(source.shape) != len(expanded.shape):
        return False
    larger = [axis for axis, size in enumerate(_names(source.shape)) if size != _names(expanded.shape)[axis]]
    for user, index in expanded.uses():
        other = user.inputs[1 - index] if user.op_type == "Add" else None
        if other is None or not _is_known(other.shape) or len(other.shape) != len(expanded.shape):
            return False
        if any(_names(other.shape)[axis] != _names(expanded.shape)[axis] for axis in larger):
            return False
    return bool(expanded.uses()) and not expanded.is_graph_output()
