"""The number of keys that an Attention may see, counted in the mask that it comes from.

Tracing counts the zeros of a mask that is added to scores, which it has just made of a mask of integers or booleans.
"""

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..patterns.attention import producer

_LENGTHS = 6
"""Position of the lengths among the inputs of Attention."""
_MOVES = ("Expand", "Gather", "Reshape", "Squeeze", "Unsqueeze")
"""Operators between the mask as it is made and the rows that are counted."""


def count_keys_fast(model: ir.Model) -> None:
    """Sum the original mask wherever the zeros of an added mask are counted for the lengths of an Attention."""
    counts = {
        count: None
        for node in model.graph
        if node.op_type == "Attention" and not node.domain and len(node.inputs) > _LENGTHS
        if (count := _count(node.inputs[_LENGTHS])) is not None
    }
    for count in counts:
        _simplify(count)
    RemoveUnusedNodesPass()(model)


def _count(lengths: ir.Value | None) -> ir.Node | None:
    """Return the sum that `lengths` consists of, but for a limit."""
    limited = producer(lengths, "Max")
    return producer(limited.inputs[0] if limited is not None else lengths, "ReduceSum")


def _simplify(count: ir.Node) -> None:
    """Let `count` sum the mask that it counts the zeros of, if it does."""
    counted = producer(count.inputs[0], "Cast")
    equal = producer(counted.inputs[0], "Equal") if counted is not None else None
    if counted is None or equal is None or not _is(equal.inputs[1], 0):
        return
    mask = _condition(equal.inputs[0])
    if mask is None:
        return
    given = producer(mask, "Cast")
    if given is not None and given.inputs[0].dtype == counted.outputs[0].dtype:
        count.replace_input_with(0, given.inputs[0])
        return
    counted.replace_input_with(0, mask)


def _condition(added: ir.Value | None) -> ir.Value | None:
    """Return the mask of the shape of `added`, which is 0 exactly where that is true."""
    rows = added
    while added is not None and (node := added.producer()) is not None and node.op_type in _MOVES:
        added = node.inputs[0]
    where = producer(added, "Where")
    if where is None or rows is None:
        return None
    condition, shown, hidden = where.inputs
    same = _shape(condition) is not None and _shape(condition) == _shape(rows)
    return condition if same and _is(shown, 0) and not _is(hidden, 0) else None


def _shape(value: ir.Value | None) -> list[str] | None:
    """Return the sizes by name: two sizes of a traced graph are equal if their names are."""
    return None if value is None or value.shape is None else [str(size) for size in value.shape]


def _is(value: ir.Value | None, number: float) -> bool:
    constant = None if value is None else value.const_value
    return constant is not None and constant.size == 1 and float(constant.numpy().item()) == number
