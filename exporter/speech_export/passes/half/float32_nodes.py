"""The nodes that stay float32 in a half-precision graph because of what they compute, whatever their numbers are.

Nodes whose numbers are out of half's range are found by measuring (`speech_export.precision.value_ranges`).
"""

from collections.abc import Collection, Iterable
from enum import Enum, auto

import onnx
import onnx_ir as ir

from ..cuda.channel_norm import is_of_channel_norm
from .kernels import CONTRIB, STANDARD, HalfKernels
from .masks import mask_nodes

FLOAT = ir.DataType.FLOAT

MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad", "Reshape", "Slice"}
    | {"Split", "Squeeze", "TensorScatter", "Tile", "TopK", "Transpose", "Unsqueeze"}
)
"""Operators that only copy numbers."""

_STATISTICS = frozenset(
    {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization", "LogSoftmax", "Softmax"}
    | {"CumSum", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceSum"}
    | {"ReduceSumSquare", "GlobalAveragePool"}
)
"""Operators that sum many elements, or exponentials: a running sum in half stops growing at 2048 times its addends."""

_PRODUCTS = frozenset({"Attention", "Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})

_READS_SHAPE = frozenset({"Shape", "Size"})
"""Operators that take any type and read only the shape."""

_BOUNDED = frozenset({"Cos", "Sin"})
"""Operators whose result is bounded: after them a position is a number like any other."""


class _Origin(Enum):
    CONSTANT = auto()
    """Only weights, or one number repeated: computed when the graph is loaded."""
    POSITION = auto()
    """Counted from integers and constants. Half cannot hold 2049, so positions stay float32 until a sine or cosine."""
    SIGNAL = auto()
    """Activations of the network, rows that are looked up in a table, and what hides keys from Attention."""


def float32_nodes(
    graph: ir.Graph,
    keep: Collection[str] = (),
    float32_interface: Collection[str] = (),
    kernels: HalfKernels = STANDARD,
) -> set[ir.Node]:
    """Return the nodes that stay float32: statistics, softmax, positions, masks, and operators without a half kernel.

    A node that only feeds such nodes stays float32 too, back to a matrix product or a convolution: so a mask is added
    to unrounded scores, and logits are rounded once.

    Args:
        graph: Float32 graph without subgraphs.
        keep: Names of nodes that stay float32 for another reason.
        float32_interface: Names of inputs and outputs that are float32.
        kernels: Half-precision kernels of the target.
    """
    found, masks = set(), mask_nodes(graph)
    origins: dict[ir.Value | None, _Origin] = dict.fromkeys(graph.initializers.values(), _Origin.CONSTANT)
    origins.update(dict.fromkeys(graph.inputs, _Origin.SIGNAL))
    for node in graph:
        origin = _Origin.SIGNAL if node in masks else _origin(node, origins)
        origins.update(dict.fromkeys(node.outputs, origin))
        if (
            node.name in keep
            or node.op_type in _STATISTICS - kernels.float32_sums
            or is_of_channel_norm(node)
            or origin is _Origin.POSITION
            or any(origins[value] is _Origin.POSITION for value in floats(node.inputs))
            or (origin is _Origin.CONSTANT and node.op_type not in MOVES)
            or not _may_be_half(node, graph.opset_imports, kernels)
        ):
            found.add(node)
    _add_feeding_nodes(graph, found, float32_interface)
    return found


def _add_feeding_nodes(graph: ir.Graph, found: set[ir.Node], float32_interface: Collection[str]) -> None:
    """Add the nodes that only feed nodes in `found`."""
    added = []
    for node in reversed(graph):
        outputs = floats(node.outputs)
        if node in found or not outputs or node.op_type in _PRODUCTS:
            continue
        readers = {user for value in outputs for user in value.consumers() if not reads_shape_only(user)}
        if readers <= found and all(value.name in float32_interface for value in outputs if value.is_graph_output()):
            found.add(node)
            added.append(node)
    for node in reversed(added):
        # A copy of half values is as exact in half as in float32, and smaller.
        copied = floats(node.inputs)
        if node.op_type in MOVES and not any(v.name in float32_interface or v.producer() in found for v in copied):
            found.remove(node)


def reads_shape_only(node: ir.Node) -> bool:
    """Return true if `node` takes tensors of any type and reads only their shape."""
    return node.op_type in _READS_SHAPE


def floats(values: Iterable[ir.Value | None]) -> list[ir.Value]:
    """Return those of `values` that are float32."""
    return [value for value in values if value is not None and value.dtype == FLOAT]


def _origin(node: ir.Node, origins: dict[ir.Value | None, _Origin]) -> _Origin:
    inputs = [value for value in node.inputs if value is not None]
    if inputs and all(origins[value] is _Origin.CONSTANT for value in inputs):
        return _Origin.CONSTANT
    of_floats = {origins[value] for value in floats(inputs)}
    if _Origin.SIGNAL in of_floats or node.op_type in _BOUNDED:
        return _Origin.SIGNAL
    if of_floats == {_Origin.CONSTANT} and node.op_type in MOVES:
        # A row of a table is a signal; one number that is repeated to some shape is still a constant.
        return _Origin.CONSTANT if all(map(_is_number, floats(inputs))) else _Origin.SIGNAL
    return _Origin.POSITION


def _is_number(value: ir.Value) -> bool:
    return value.is_initializer() and value.const_value is not None and value.const_value.size == 1


def _may_be_half(node: ir.Node, opset_imports: dict[str, int], kernels: HalfKernels) -> bool:
    """Return true if half is possible for every float32 tensor of `node`, and none of them has a fixed type."""
    if node.domain == CONTRIB:
        return node.op_type in kernels.contrib
    if node.op_type in _CONVOLUTIONS and node.attributes.get_int("group", 1) > 1 and not kernels.grouped_convolutions:
        return False
    try:
        schema = onnx.defs.get_schema(node.op_type, opset_imports[node.domain], node.domain)
    except (KeyError, onnx.defs.SchemaError):
        return False
    types = {constraint.type_param_str: set(constraint.allowed_type_strs) for constraint in schema.type_constraints}
    formals = [(schema.inputs, node.inputs), (schema.outputs, node.outputs)]
    return all(
        "tensor(float16)" in types.get(formal[min(i, len(formal) - 1)].type_str, ())
        for formal, actual in formals
        for i, value in enumerate(actual)
        if value is not None and value.dtype == FLOAT
    )
