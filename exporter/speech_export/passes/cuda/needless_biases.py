"""Removes the biases of keys and values, which need not be computed.

The bias of the keys adds the same number to all scores of a query, and a softmax takes no notice of that. The weights
of a softmax sum to 1, so the bias of the values is added to each result as it is: the output projection can add it.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from ..patterns.projections import Projection, initializer, projections, remove_unused_initializers

_KEY, _VALUE = 1, 2
"""Positions of inputs of Attention."""


def drop_needless_biases(model: ir.Model) -> None:
    """Remove the biases of the keys, and move those of the values, of every Attention where that is exact."""
    graph = model.graph
    made = {projection.output: projection for projection in projections(graph)}
    for attention in [node for node in graph if node.op_type == "Attention"]:
        key, value = (_projected(attention, index, made) for index in (_KEY, _VALUE))
        if key is not None and not attention.attributes.get_float("softcap", 0.0):  # a cap bends the scores
            _drop_bias(key)
        output = _output_projection(attention, made)
        if value is not None and output is not None and _is_as_wide(value, output):
            _move_bias(graph, value, output)
    remove_unused_initializers(graph)


def _projected(attention: ir.Node, index: int, made: dict[ir.Value, Projection]) -> Projection | None:
    """Return the projection with a bias that nothing but an input of an Attention is made of."""
    value = attention.inputs[index]
    while value is not None and value not in made and (before := _moved_from(value)) is not None:
        value = before
    projection = None if value is None else made.get(value)
    if projection is None or projection.bias is None or projection.output.is_graph_output():
        return None
    return projection if _feeds_only(projection.output, attention, index) else None


def _moved_from(value: ir.Value) -> ir.Value | None:
    """Return the rows that `value` consists of, before a Reshape or a TensorScatter that adds them to others."""
    node = value.producer()
    if node is None or node.op_type not in ("Reshape", "TensorScatter"):
        return None
    return node.inputs[1 if node.op_type == "TensorScatter" else 0]


def _feeds_only(value: ir.Value, attention: ir.Node, index: int) -> bool:
    """Return true if `value` reaches one input of one Attention, moved at most, and nothing else but a cache."""
    for node, position in value.uses():
        if node is attention and position == index:
            continue
        if _moved_from(node.outputs[0]) is not value or not _feeds_only(node.outputs[0], attention, index):
            return False
    return True


def _output_projection(attention: ir.Node, made: dict[ir.Value, Projection]) -> Projection | None:
    """Return the projection with a bias that is the only reader of the result of an Attention."""
    value = attention.outputs[0]
    while (following := list(_only_readers(value))) and following[0].op_type == "Reshape":
        value = following[0].outputs[0]
    if not following:
        return None
    found = [each for each in made.values() if each.nodes[0] is following[0] and each.x is value]
    return found[0] if found and found[0].bias is not None else None


def _is_as_wide(value: Projection, output: Projection) -> bool:
    """Return true if the output projection takes a number for each of the values: heads may share them."""
    assert value.bias is not None  # noqa: S101 - the caller looks for projections with one
    return bool(value.bias.const_value.size == len(output.matrix()))


def _only_readers(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the node that reads `value`, if it is the only one."""
    uses = value.uses()
    if len(uses) == 1 and not value.is_graph_output():
        yield uses[0].node


def _drop_bias(projection: Projection) -> None:
    """Let everything read the product without its bias."""
    product, add = projection.nodes[0], projection.nodes[-1]
    if product is add:  # a Gemm
        product.replace_input_with(2, None)
        return
    ir.convenience.replace_all_uses_with(add.outputs[0], product.outputs[0])
    assert add.graph is not None  # noqa: S101 - the node was found in a graph
    add.graph.remove(add, safe=True)


def _move_bias(graph: ir.Graph, value: Projection, output: Projection) -> None:
    """Move the bias of the values into that of the output projection."""
    assert value.bias is not None  # noqa: S101 - the caller looks for projections with one
    assert output.bias is not None  # noqa: S101
    # In float64: sums of a thousand products, computed once.
    moved, bias = (each.const_value.numpy().reshape(-1).astype(np.float64) for each in (value.bias, output.bias))
    total = bias + moved @ output.matrix().astype(np.float64)
    together = initializer(graph, f"{output.bias.name}.with_values", total.astype(np.float32))
    node = output.nodes[-1]
    node.replace_input_with(next(i for i, given in enumerate(node.inputs) if given is output.bias), together)
    _drop_bias(value)
