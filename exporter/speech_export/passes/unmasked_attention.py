"""Attention without a mask if no frame is masked, and with a cheaper mask otherwise.

The kernel of `com.microsoft::MultiHeadAttention` is fastest without a mask (flash attention). A single utterance, and a
batch of equal lengths, need none. In any other batch the mask goes into the keys: each query is extended by
the number 1, and each key by the number that the mask adds, so that their product is the masked score.
"""

from dataclasses import dataclass

import onnx_ir as ir

_MASKED = -1e30  # Outweighs any score, and stays finite when it is divided by the scale.


@dataclass(frozen=True)
class _Mask:
    """Values that all layers with the same mask share.

    Attributes:
        absent: True if the mask masks nothing, bool.
        column: Numbers that the mask adds to the scores, float32 [batch, frames, heads, 1].
        ones: Ones of the same shape.
        split: Shape [batch, frames, heads, head_dim].
        merged: Shape [batch, frames, heads · (head_dim + 1)].
    """

    absent: ir.Value
    column: ir.Value
    ones: ir.Value
    split: ir.Value
    merged: ir.Value


def drop_needless_masks(model: ir.Model) -> None:
    """Replace every self-attention with a mask of keys, int32 [batch, frames], by an `If` with and without the mask."""
    masks: dict[ir.Value, _Mask] = {}
    for node in list(model.graph):
        if node.op_type == "MultiHeadAttention" and len(node.inputs) == 5 and node.inputs[4] is not None:
            mask = node.inputs[4]
            if mask not in masks:
                masks[mask] = _prepare(node, mask)
            _branch(node, masks[mask])


def _prepare(first: ir.Node, mask: ir.Value) -> _Mask:
    """Compute the shared values before the `first` layer; all layers have the same heads and scale."""
    assert first.graph is not None  # noqa: S101 - the node was found in a graph
    graph, heads, scale = first.graph, first.attributes.get_int("num_heads"), first.attributes.get_float("scale")

    def constant(name: str, value: object, dtype: ir.DataType) -> ir.Value:
        tensor = ir.tensor(value, dtype, name=f"{mask.name}.{name}")
        initializer = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(dtype), const_value=tensor)
        graph.register_initializer(initializer)
        return initializer

    def operation(op_type: str, name: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        node = _node(op_type, f"{mask.name}.{name}", *inputs, **attributes)
        graph.insert_before(first, node)
        return node.outputs[0]

    one = constant("one", 1, ir.DataType.INT32)
    absent = operation("Equal", "absent", operation("ReduceMin", "least", mask, keepdims=0), one)
    masked = operation("Cast", "masked", operation("Sub", "inverse", one, mask), to=ir.DataType.FLOAT.value)
    added = operation("Mul", "added", masked, constant("score", _MASKED / scale, ir.DataType.FLOAT))
    added = operation("Reshape", "column", added, constant("column.shape", [0, 0, 1, 1], ir.DataType.INT64))
    column = operation("Expand", "columns", added, constant("heads", [1, 1, heads, 1], ir.DataType.INT64))
    present = constant("present", 1.0, ir.DataType.FLOAT)
    return _Mask(
        absent=absent,
        column=column,
        ones=operation("Expand", "ones", present, operation("Shape", "columns.shape", column)),
        split=constant("split", [0, 0, heads, -1], ir.DataType.INT64),
        merged=constant("merged", [0, 0, -1], ir.DataType.INT64),
    )


def _branch(node: ir.Node, mask: _Mask) -> None:
    """Replace `node` by an `If` of the attention without a mask and the attention with extended keys."""
    assert node.graph is not None  # noqa: S101 - the node was found in a graph
    query, key, value = node.inputs[:3]
    plain = _node("MultiHeadAttention", f"{node.name}.unmasked", query, key, value)
    nodes = []
    extended = []
    for name, state, column in (("query", query, mask.ones), ("key", key, mask.column)):
        split = _node("Reshape", f"{node.name}.{name}.split", state, mask.split)
        longer = _node("Concat", f"{node.name}.{name}.extended", split.outputs[0], column, axis=3)
        merged = _node("Reshape", f"{node.name}.{name}", longer.outputs[0], mask.merged)
        nodes += [split, longer, merged]
        extended.append(merged.outputs[0])
    masked = _node("MultiHeadAttention", f"{node.name}.masked", *extended, value)
    for attention in (plain, masked):
        attention.domain, attention.version = node.domain, node.version
        attention.attributes.update(node.attributes)
        attention.outputs[0].shape, attention.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
    branches = {
        "then_branch": ir.Graph([], plain.outputs, nodes=[plain], name=f"{node.name}.unmasked"),
        "else_branch": ir.Graph([], masked.outputs, nodes=[*nodes, masked], name=f"{node.name}.masked"),
    }
    choice = ir.node("If", [mask.absent], branches, name=node.name)
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], [choice], node.outputs, choice.outputs)


def _node(op_type: str, name: str, *inputs: ir.Value | None, **attributes: int) -> ir.Node:
    node = ir.node(op_type, inputs, attributes, name=name)
    node.outputs[0].name = name
    return node
