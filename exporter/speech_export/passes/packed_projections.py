"""One MatMul for all projections of the same input: queries, keys and values, and the cross-attention of all layers.

The input is read, and quantised, once; a large matrix product uses the cores better than several small ones.
"""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from .projections import Projection, initializer

_SPELLED_OUT = 3


def pack_projections(model: ir.Model, candidates: Iterable[Projection]) -> None:
    """Replace those of `candidates` that share their input by one MatMul, one Add and a Split. Exact."""
    groups: dict[ir.Value, list[Projection]] = {}
    for projection in candidates:
        groups.setdefault(projection.x, []).append(projection)
    for group in groups.values():
        if len(group) > 1:
            _pack(model.graph, group)


def _pack(graph: ir.Graph, group: list[Projection]) -> None:
    first = group[0]
    name = f"{first.name}+{len(group) - 1}" if len(group) > _SPELLED_OUT else _joined([each.name for each in group])
    widths = [each.matrix().shape[1] for each in group]
    weight = initializer(graph, f"{name}.weight", np.concatenate([each.matrix() for each in group], axis=1))
    product = ir.node("MatMul", [first.x, weight], name=name)
    nodes, packed = [product], product.outputs[0]
    packed.name = f"{name}.product"
    if any(each.bias is not None for each in group):
        vectors = [_bias(each, width) for each, width in zip(group, widths, strict=True)]
        bias = initializer(graph, f"{name}.bias", np.concatenate(vectors))
        nodes.append(ir.node("Add", [packed, bias], name=f"{name}/Add"))
        packed = nodes[-1].outputs[0]
        packed.name = f"{name}.sum"
    sizes = initializer(graph, f"{name}.widths", np.array(widths, dtype=np.int64))
    split = ir.node("Split", [packed, sizes], {"axis": -1}, num_outputs=len(group), name=f"{name}/Split")
    graph.insert_before(first.nodes[0], [*nodes, split])
    for each, output in zip(group, split.outputs, strict=True):
        given = each.output.name
        output.shape, output.type = each.output.shape, each.output.type
        ir.convenience.replace_all_uses_with(each.output, output, replace_graph_outputs=True)
        graph.remove(each.nodes, safe=True)
        output.name = given


def _joined(names: list[str]) -> str:
    """`a.q_proj`, `a.k_proj` → `a.q_proj+k_proj`."""
    return "+".join([names[0], *(name.rpartition(".")[2] for name in names[1:])])


def _bias(projection: Projection, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    bias = projection.bias_vector()
    return np.zeros(width, dtype=np.float32) if bias is None else bias
