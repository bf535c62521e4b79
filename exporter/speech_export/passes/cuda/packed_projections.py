"""Queries, keys and values of a layer in one product, which is split into equal parts.

One large product takes less time than three small ones, and a Split into three equal parts has a kernel of its own,
which needs no table from the host.
"""

from collections import defaultdict

import numpy as np
import onnx_ir as ir

from ..patterns.projections import Projection, initializer, projections, remove_unused_initializers
from ..tracer_metadata import packed_name

_PARTS = 3


def pack_projections(model: ir.Model) -> None:
    """Join every three products of a module that have the same input and are equally wide."""
    for joined in _triples(model.graph):
        _join(model.graph, joined)
    remove_unused_initializers(model.graph)


def _triples(graph: ir.Graph) -> list[list[Projection]]:
    alike: dict[tuple[ir.Value, str, tuple[int, ...]], list[Projection]] = defaultdict(list)
    for projection in projections(graph):
        shape = projection.matrix().shape
        if projection.nodes[0].op_type == "MatMul" and _is_used_here_only(projection.weight):
            alike[projection.x, projection.name.rpartition(".")[0], shape].append(projection)
    return [found for found in alike.values() if len(found) == _PARTS]


def _is_used_here_only(weight: ir.Value) -> bool:
    """Return true for a weight that would not be stored twice."""
    return len(weight.uses()) == 1


def _join(graph: ir.Graph, joined: list[Projection]) -> None:
    """Replace the products by one and a Split; their biases stay where they are."""
    products = [projection.nodes[0] for projection in joined]
    name = packed_name([projection.name for projection in joined])
    matrices = [projection.matrix() for projection in joined]
    weight = initializer(graph, f"{name}.weight", np.concatenate(matrices, axis=1))
    product = ir.node("MatMul", [joined[0].x, weight], name=name)
    split = ir.node(
        "Split", product.outputs, {"axis": -1, "num_outputs": _PARTS}, num_outputs=_PARTS, name=f"{name}/Split"
    )
    old = [node.outputs[0] for node in products]
    (packed,), width = product.outputs, matrices[0].shape[1]
    packed.name, packed.type = f"{name}.packed", old[0].type
    packed.shape = ir.Shape([*old[0].shape[:-1], _PARTS * width])
    graph.insert_before(products[0], [product, split])
    for part, value in zip(split.outputs, old, strict=True):
        part.shape, part.type = value.shape, value.type
        ir.convenience.replace_all_uses_with(value, part, replace_graph_outputs=True)
    graph.remove(products, safe=True)
    for part, value in zip(split.outputs, old, strict=True):
        part.name = value.name
