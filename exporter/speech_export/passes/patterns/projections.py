"""The matrix products with constant weights in a graph, and edits of its weights."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


@dataclass(frozen=True)
class Projection:
    """`x @ weight + bias`: a MatMul or Gemm, and the Add that follows it.

    Attributes:
        name: Name of its module.
        nodes: Nodes that it consists of.
        x: Input, float32 [..., K].
        weight: Initializer, float32 [K, N], or [N, K] if `transposed`.
        transposed: True if the weight is stored as [N, K].
        bias: Initializer of N values; None for no bias.
        output: Output, float32 [..., N].
    """

    name: str
    nodes: tuple[ir.Node, ...]
    x: ir.Value
    weight: ir.Value
    transposed: bool
    bias: ir.Value | None
    output: ir.Value

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.weight.const_value.shape.numpy()))

    def matrix(self) -> NDArray[np.float32]:
        """Return the weight, float32 [K, N]."""
        weight: NDArray[np.float32] = self.weight.const_value.numpy()
        return weight.T if self.transposed else weight

    def bias_vector(self) -> NDArray[np.float32] | None:
        """Return the bias, float32 [N]; None for no bias."""
        return None if self.bias is None else self.bias.const_value.numpy().reshape(-1)


def projections(graph: ir.Graph) -> Iterator[Projection]:
    """Yield every projection of `graph`, in its order."""
    for node in graph:
        found = _of_matmul(node) if node.op_type == "MatMul" else _of_gemm(node) if node.op_type == "Gemm" else None
        if found is not None:
            yield found


def replace(graph: ir.Graph, projection: Projection, nodes: Iterable[ir.Node], output: ir.Value) -> None:
    """Replace a projection by new `nodes`, which make `output`.

    They are inserted before its first node, where all their inputs exist.
    """
    graph.insert_before(projection.nodes[0], nodes)
    name = projection.output.name
    output.shape, output.type = projection.output.shape, projection.output.type
    ir.convenience.replace_all_uses_with(projection.output, output, replace_graph_outputs=True)
    graph.remove(projection.nodes, safe=True)
    output.name = name


def remove_unused_initializers(graph: ir.Graph) -> None:
    """Remove the weights that nothing reads."""
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        if not graph.initializers[name].is_graph_output():
            del graph.initializers[name]


def initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Add a weight to `graph`, under a unique name."""
    unique, count = name, 1
    while unique in graph.initializers:
        count += 1
        unique = f"{name}/{count}"
    tensor = ir.tensor(np.asarray(array, order="C"), name=unique)  # A scalar stays a scalar.
    value = ir.Value(name=unique, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
    graph.initializers.add(value)
    return value


def _of_matmul(node: ir.Node) -> Projection | None:
    x, weight = node.inputs
    if x is None or not _is_float_matrix(weight):
        return None
    columns = weight.const_value.shape.numpy()[1]
    (output,) = node.outputs
    add, bias = _bias_of(output, columns)
    if add is None:
        return Projection(str(node.name), (node,), x, weight, False, None, output)
    return Projection(str(node.name), (node, add), x, weight, False, bias, add.outputs[0])


def _of_gemm(node: ir.Node) -> Projection | None:
    x, weight, bias = (*node.inputs, None)[:3]
    if x is None or not _is_float_matrix(weight) or node.attributes.get_int("transA", 0):
        return None
    if any(node.attributes.get_float(factor, 1.0) != 1.0 for factor in ("alpha", "beta")):
        return None
    transposed = bool(node.attributes.get_int("transB", 0))
    columns = weight.const_value.shape.numpy()[0 if transposed else 1]
    if bias is not None and not _is_vector(bias, columns):
        return None
    return Projection(str(node.name), (node,), x, weight, transposed, bias, node.outputs[0])


def _bias_of(output: ir.Value, columns: int) -> tuple[ir.Node | None, ir.Value | None]:
    """Return the Add of a constant vector that is the only reader of `output`, and the vector."""
    uses = output.uses()
    if len(uses) != 1 or output.is_graph_output():
        return None, None
    ((node, index),) = uses
    if node.op_type != "Add":
        return None, None
    bias = node.inputs[1 - index]
    return (node, bias) if _is_vector(bias, columns) else (None, None)


def _is_float_matrix(value: ir.Value | None) -> bool:
    return (
        value is not None
        and value.is_initializer()
        and value.const_value is not None
        and value.const_value.dtype == ir.DataType.FLOAT
        and len(value.const_value.shape) == 2
    )


def _is_vector(value: ir.Value | None, length: int) -> bool:
    """Return true if `value` is a constant of `length` values along its last axis."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return False
    shape = value.const_value.shape.numpy()
    return bool(shape) and shape[-1] == length == int(np.prod(shape)) and value.const_value.dtype == ir.DataType.FLOAT
