"""Which nodes stay float32 in a half-precision graph for what they are, whatever numbers go through them.

Values out of half's range are another matter: those are measured (`speech_export.precision.value_ranges`).
"""

from collections.abc import Collection, Iterable
from enum import Enum, auto

import onnx
import onnx_ir as ir

from .casts import FLOAT

MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice", "Split"}
    | {"Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
"""They copy numbers and compute none."""

_STATISTICS = frozenset(
    {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization", "LogSoftmax", "Softmax"}
    | {"CumSum", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceSum"}
    | {"ReduceSumSquare", "GlobalAveragePool"}
)
"""Sums over many elements, or of exponentials: a running sum in half stops growing at 2048 times its addends."""

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})

_READS_SHAPE = frozenset({"Shape", "Size"})
"""They take any type and look at no number."""

_BOUNDED = frozenset({"Cos", "Sin"})
"""Behind them a position is a number like any other."""


class _Origin(Enum):
    CONSTANT = auto()
    """Nothing but weights, or a number repeated: engines compute it while they load."""
    POSITION = auto()
    """Counted: made of integers and constants. 2049 is no half, so these stay float32 until a sine or a cosine."""
    SIGNAL = auto()
    """What the network says, and looked-up rows of a table."""


def float32_nodes(graph: ir.Graph, keep: Collection[str] = (), float32_interface: Collection[str] = ()) -> set[ir.Node]:
    """The nodes of `graph` that stay float32: statistics, softmax, positions, masks, and what half has no kernel for.

    What feeds none but such nodes is one of them too, back to a product of matrices or a convolution: a mask is added
    to unrounded scores, and logits are rounded once.

    Args:
        graph: float32, without subgraphs.
        keep: names of nodes that stay float32 for another reason.
        float32_interface: names of inputs and outputs that are float32.
    """
    found = set()
    origins: dict[ir.Value | None, _Origin] = dict.fromkeys(graph.initializers.values(), _Origin.CONSTANT)
    origins.update(dict.fromkeys(graph.inputs, _Origin.SIGNAL))
    for node in graph:
        origin = _origin(node, origins)
        origins.update(dict.fromkeys(node.outputs, origin))
        if (
            node.name in keep
            or node.op_type in _STATISTICS
            or origin is _Origin.POSITION
            or any(origins[value] is _Origin.POSITION for value in floats(node.inputs))
            or (origin is _Origin.CONSTANT and node.op_type not in MOVES)
            or not _may_be_half(node, graph.opset_imports)
        ):
            found.add(node)
    _add_what_feeds_them(graph, found, float32_interface)
    return found


def _add_what_feeds_them(graph: ir.Graph, found: set[ir.Node], float32_interface: Collection[str]) -> None:
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
        # Copies of halves are as good as the halves, and smaller.
        copied = floats(node.inputs)
        if node.op_type in MOVES and not any(v.name in float32_interface or v.producer() in found for v in copied):
            found.remove(node)


def reads_shape_only(node: ir.Node) -> bool:
    """Whether `node` takes tensors of any type and looks at no number in them."""
    return node.op_type in _READS_SHAPE


def floats(values: Iterable[ir.Value | None]) -> list[ir.Value]:
    """Those of `values` that are float32."""
    return [value for value in values if value is not None and value.dtype == FLOAT]


def _origin(node: ir.Node, origins: dict[ir.Value | None, _Origin]) -> _Origin:
    inputs = [value for value in node.inputs if value is not None]
    if inputs and all(origins[value] is _Origin.CONSTANT for value in inputs):
        return _Origin.CONSTANT
    of_floats = {origins[value] for value in floats(inputs)}
    if _Origin.SIGNAL in of_floats or node.op_type in _BOUNDED:
        return _Origin.SIGNAL
    if of_floats == {_Origin.CONSTANT} and node.op_type in MOVES:
        # A row of a table says something; a number that is repeated to some shape is a number still.
        return _Origin.CONSTANT if all(map(_is_number, floats(inputs))) else _Origin.SIGNAL
    return _Origin.POSITION


def _is_number(value: ir.Value) -> bool:
    return value.is_initializer() and value.const_value is not None and value.const_value.size == 1


def _may_be_half(node: ir.Node, opset_imports: dict[str, int]) -> bool:
    """Whether ONNX lets every float32 tensor of `node` be half, and none of them has a type of its own."""
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
