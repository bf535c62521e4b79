"""The number of frames of each utterance, in a fifth of the operations.

A convolution makes (samples − kernel) // stride + 1 frames. Tracing corrects the sign of each division in eight
operations, each of which is one more kernel on a GPU. Here a large multiple of the divisor is added before, so that the
dividend is positive and the division needs no correction, and subtracted after; then neighbouring sums of constants
become one.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..patterns.attention import producer
from ..patterns.projections import initializer

_LARGE = 2**40
"""Quotient that is added: far above any number of samples, and small enough for a product with any stride."""


def count_frames_fast(model: ir.Model) -> None:
    """Simplify every floor division of integers by a positive constant, and every sum of constants beside it."""
    graph, divided = model.graph, False
    for node in [node for node in graph if node.op_type == "Sub"]:
        divided |= _simplify_division(graph, node)
    if divided:
        for node in [node for node in graph if node.op_type in ("Add", "Sub")]:
            _join_constants(graph, node)
        RemoveUnusedNodesPass()(model)


def _simplify_division(graph: ir.Graph, node: ir.Node) -> bool:
    """Replace a floor division that ends in `node`, a Sub; return false if it is something else."""
    quotient = producer(node.inputs[0], "Div")
    if quotient is None or not _is_correction(node.inputs[1], quotient):
        return False
    dividend, divisor = quotient.inputs
    number = _number(divisor)
    if dividend is None or number is None or number <= 0:
        return False
    positive = _operation(graph, node, "Add", dividend, _constant(graph, number * _LARGE))
    divided = _operation(graph, node, "Div", positive, divisor)
    node.replace_input_with(0, divided)
    node.replace_input_with(1, _constant(graph, _LARGE))
    return True


def _is_correction(value: ir.Value | None, quotient: ir.Node) -> bool:
    """Return true if `value` is 1 where `quotient` was rounded up, since its dividend is negative, and 0 elsewhere."""
    both = producer(_input(producer(value, "Cast")), "And")
    if both is None:
        return False
    dividend, divisor = quotient.inputs
    found = set()
    for condition in both.inputs:
        remainder = producer(_input(producer(condition, "Cast")), "Mod")
        negative = producer(_input(producer(condition, "Equal")), "Less")
        if remainder is not None and list(remainder.inputs) == [dividend, divisor]:
            found.add("remainder")
        if negative is not None and negative.inputs[0] is dividend and _number(negative.inputs[1]) == 0:
            found.add("negative")
    return found == {"remainder", "negative"}


def _join_constants(graph: ir.Graph, node: ir.Node) -> None:
    """Let `node` add its constant and that of the sum before it, if it is such a sum of integers."""
    own, before = _addend(node), node.inputs[0].producer() if node.inputs[0] is not None else None
    other = None if before is None else _addend(before)
    if own is None or other is None or before is None:
        return
    joined = _operation(graph, node, "Add", before.inputs[0], _constant(graph, own + other))
    output = node.outputs[0]
    joined.shape, joined.type = output.shape, output.type
    ir.convenience.replace_all_uses_with(output, joined, replace_graph_outputs=True)


def _addend(node: ir.Node) -> int | None:
    """Return the constant that a node adds to its first input, an integer; None if it does something else."""
    if node.op_type not in ("Add", "Sub") or node.outputs[0].dtype != ir.DataType.INT64:
        return None
    number = _number(node.inputs[1])
    return -number if number is not None and node.op_type == "Sub" else number


def _number(value: ir.Value | None) -> int | None:
    constant = value.const_value if value is not None and value.is_initializer() else None
    if constant is None or constant.size != 1 or constant.dtype != ir.DataType.INT64:
        return None
    return int(constant.numpy().item())


def _input(node: ir.Node | None) -> ir.Value | None:
    return None if node is None else node.inputs[0]


def _constant(graph: ir.Graph, number: int) -> ir.Value:
    return initializer(graph, f"frames.{number}", np.array(number, dtype=np.int64))


def _operation(graph: ir.Graph, before: ir.Node, op_type: str, *inputs: ir.Value | None) -> ir.Value:
    node = ir.node(op_type, inputs, name=f"{before.name}/{op_type}")
    output = node.outputs[0]
    output.name, output.type = f"{before.outputs[0].name}.{op_type}", before.outputs[0].type
    output.shape = before.outputs[0].shape
    graph.insert_before(before, node)
    return output
