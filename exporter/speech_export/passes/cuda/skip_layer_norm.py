"""A sum and its layer norm as one `com.microsoft::SkipLayerNormalization`.

The kernel adds a residual and a bias, and sums in float32 whatever the type of its numbers. It also returns the sum,
which models that normalise before each block (pre-LN) need for the next residual.
"""

from dataclasses import dataclass

import onnx_ir as ir

from ..patterns.projections import projections

DOMAIN = "com.microsoft"
_SUM = 3
"""Position of the output that is the sum."""


@dataclass(frozen=True)
class _Addends:
    """The terms of a sum, [batch, tokens, width], and perhaps a bias [width] of one of them."""

    input: ir.Value
    skip: ir.Value
    bias: ir.Value | None


def fuse_skip_layer_norms(model: ir.Model) -> None:
    """Fuse every LayerNormalization over the last axis of a sum of two tensors of the same shape."""
    graph = model.graph
    biased = {
        projection.output: projection.bias
        for projection in projections(graph)
        if projection.bias is not None
        and projection.nodes[-1].op_type == "Add"
        and _is_vector(projection.bias, projection.output)
    }
    for norm in [node for node in graph if node.op_type == "LayerNormalization"]:
        if (addends := _addends(norm, biased)) is not None:
            _fuse(graph, norm, addends)
            graph.opset_imports[DOMAIN] = 1


def _addends(norm: ir.Node, biased: dict[ir.Value, ir.Value]) -> _Addends | None:
    """Return the terms of the sum that `norm` normalises, if it is one that the kernel computes."""
    total, scale, shift = (*norm.inputs, None)[:3]
    add = None if total is None else total.producer()
    if add is None or add.op_type != "Add" or total.is_graph_output() or not _is_plain(norm):
        return None
    first, second = add.inputs
    known = all(value is not None and value.shape is not None for value in (first, second, total))
    if not known or len(total.shape) != 3 or not _same_shape(first, total) or not _same_shape(second, total):
        return None
    if any(value is not None and not _is_vector(value, total) for value in (scale, shift)):
        return None
    for value, other in ((first, second), (second, first)):
        if value in biased and len(value.uses()) == 1 and not value.is_graph_output():
            product = next(given for given in value.producer().inputs if given is not biased[value])
            return _Addends(product, other, biased[value])
    return _Addends(first, second, None)


def _is_plain(norm: ir.Node) -> bool:
    """Return true if a norm is over the last axis, and its statistics are not read."""
    rank = len(norm.inputs[0].shape) if norm.inputs[0].shape is not None else None
    axis = norm.attributes.get_int("axis", -1)
    return (
        rank is not None
        and axis in (-1, rank - 1)
        and not any(value.uses() or value.is_graph_output() for value in norm.outputs[1:])
    )


def _same_shape(value: ir.Value, other: ir.Value) -> bool:
    """Return true if no axis is broadcast: two sizes of a traced graph are equal if their names are."""
    return [str(size) for size in value.shape] == [str(size) for size in other.shape]


def _is_vector(value: ir.Value, rows: ir.Value) -> bool:
    """Return true if `value` is a constant with a number for each element of a row of `rows`."""
    if not value.is_initializer() or value.shape is None or rows.shape is None:
        return False
    return len(value.shape) == 1 and value.shape[0] == rows.shape[-1]


def _fuse(graph: ir.Graph, norm: ir.Node, addends: _Addends) -> None:
    total = norm.inputs[0]
    scale, shift = (*norm.inputs, None)[1:3]
    others = [node for node, _ in total.uses() if node is not norm]
    fused = ir.node(
        "SkipLayerNormalization",
        [addends.input, addends.skip, scale, shift, addends.bias],
        {"epsilon": norm.attributes.get_float("epsilon", 1e-5)},
        domain=DOMAIN,
        version=1,
        num_outputs=_SUM + 1 if others else 1,
        name=str(norm.name).replace("/LayerNormalization", "/SkipLayerNormalization"),
    )
    for unused in fused.outputs[1:_SUM]:
        unused.name = ""
    # Where the sum was made, as others may read it before the norm.
    graph.insert_before(total.producer(), fused)
    normed = norm.outputs[0]
    replaced = [(normed, fused.outputs[0]), *([(total, fused.outputs[_SUM])] if others else [])]
    for old, new in replaced:
        new.shape, new.type = old.shape, old.type
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    added = total.producer()
    graph.remove(norm, safe=True)
    graph.remove(added, safe=True)
    if addends.bias is not None:
        biased = next(
            node for node in addends.input.consumers() if node.op_type == "Add" and not node.outputs[0].uses()
        )
        graph.remove(biased, safe=True)
    for old, new in replaced:
        new.name = old.name
