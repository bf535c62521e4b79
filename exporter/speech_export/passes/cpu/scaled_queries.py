"""Moves the scale of attention into the weights of its queries.

In a step each beam has a single query. Without a scale, ONNX Runtime multiplies it with the keys in place; with a scale
it first packs the keys, as for a large product. After 200 tokens, packing takes a fifth of the time of
`com.microsoft::GroupQueryAttention`.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..patterns.attention import producer
from ..patterns.projections import Projection, initializer, projections, remove_unused_initializers

_KINDS = ("GroupQueryAttention", "MultiHeadAttention")


@dataclass(frozen=True)
class _Queries:
    """Columns of a projection that are the queries of an attention."""

    projection: Projection
    columns: slice


def scale_queries(model: ir.Model) -> None:
    """Scale the projection of the queries of every attention, if nothing else reads them."""
    graph = model.graph
    made = {projection.output: projection for projection in projections(graph)}
    for attention in [node for node in graph if node.op_type in _KINDS]:
        queries = _queries(attention.inputs[0], made)
        scale = attention.attributes.get_float("scale", 1.0)
        if queries is not None and scale != 1.0:
            _scale(graph, queries, scale)
            attention.attributes["scale"] = ir.AttrFloat32("scale", 1.0)
    remove_unused_initializers(graph)


def _queries(value: ir.Value, made: dict[ir.Value, Projection]) -> _Queries | None:
    """Return the projection that `value` comes from, through a Split of its columns or a Reshape of its other axes."""
    first, width = 0, _width(value)
    while width is not None and len(value.uses()) == 1 and not value.is_graph_output():
        if value in made:
            return _Queries(made[value], slice(first, first + width))
        reshaped, split = producer(value, "Reshape"), producer(value, "Split")
        if reshaped is not None and _width(reshaped.inputs[0]) == _width(value):
            value = reshaped.inputs[0]
        elif split is not None and (before := _columns_before(split, value)) is not None:
            first, value = first + before, split.inputs[0]
        else:
            return None
    return None


def _columns_before(split: ir.Node, value: ir.Value) -> int | None:
    """Return the number of columns before `value` in the input of a Split; None if it splits another axis."""
    whole, others = split.inputs[0].shape, split.outputs[: split.outputs.index(value)]
    widths = [width for width in map(_width, others) if width is not None]
    is_known = whole is not None and len(widths) == len(others)
    return sum(widths) if is_known and split.attributes.get_int("axis", 0) in (-1, len(whole) - 1) else None


def _width(value: ir.Value) -> int | None:
    """Return the size of the last axis; None if it is unknown."""
    width = value.shape[-1] if value.shape else None
    return width if isinstance(width, int) else None


def _scale(graph: ir.Graph, queries: _Queries, scale: float) -> None:
    projection = queries.projection

    def scaled(array: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        factors = np.ones(array.shape[axis], dtype=np.float32)
        factors[queries.columns] = scale
        return array * (factors if axis else factors[:, None])

    _replace(
        graph, projection, projection.weight, scaled(projection.weight.const_value.numpy(), 1 - projection.transposed)
    )
    bias = projection.bias_vector()
    if projection.bias is not None and bias is not None:
        _replace(graph, projection, projection.bias, scaled(bias[None], 1)[0])


def _replace(graph: ir.Graph, projection: Projection, weight: ir.Value, array: NDArray[np.float32]) -> None:
    """Give this projection another weight; other readers keep the old one."""
    for node in projection.nodes:
        for index, value in enumerate(node.inputs):
            if value is weight:
                node.replace_input_with(index, initializer(graph, str(weight.name), array))
