"""Half precision: weights and computation in float16, and casts around what stays float32.

The graph stays standard ONNX; no node mixes the two, so that it is a strongly typed network for TensorRT.
"""

from collections.abc import Collection

import onnx_ir as ir

from .casts import FLOAT, HALF, Casts, weight_as
from .float32_nodes import float32_nodes, floats, reads_shape_only


def to_half(model: ir.Model, keep_float32: Collection[str] = (), float32_interface: Collection[str] = ()) -> None:
    """Turn a float32 graph into one of half precision, in place.

    Args:
        model: as traced, standard ONNX without subgraphs.
        keep_float32: names of nodes that compute in float32, besides those that always do (`float32_nodes`).
        float32_interface: names of inputs and outputs that stay float32; all others become float16.
    """
    graph = model.graph
    single = float32_nodes(graph, keep_float32, float32_interface)
    nodes = [node for node in graph if not reads_shape_only(node)]
    for weight in list(graph.initializers.values()):
        if weight.dtype == FLOAT:
            _convert_weight(graph, weight, single)
    half = [value for value in graph.inputs if value.dtype == FLOAT and value.name not in float32_interface]
    half += [value for node in nodes if node not in single for value in floats(node.outputs)]
    for value in half:
        value.type = ir.TensorType(HALF)
    casts = Casts(graph)
    for node in nodes:
        wanted = FLOAT if node in single else HALF
        for value in dict.fromkeys(
            value for value in node.inputs if value is not None and value.dtype in (FLOAT, HALF)
        ):
            if value.dtype != wanted:
                casts.give(node, value)
    for position, value in enumerate(graph.outputs):
        wanted = FLOAT if value.name in float32_interface else HALF
        if value.dtype in (FLOAT, HALF) and value.dtype != wanted:
            casts.put_out(position)


def _convert_weight(graph: ir.Graph, value: ir.Value, single: Collection[ir.Node]) -> None:
    """Half, float32, or, where both are wanted, one of each."""
    for_half = [use for use in value.uses() if use.node not in single]
    if not for_half:
        return
    name = str(value.name)
    if len(for_half) == len(value.uses()):
        del graph.initializers[name]
    else:
        name = f"{name}.half"
    half = weight_as(value, HALF, name)
    for use in for_half:
        use.node.replace_input_with(use.idx, half)
    graph.initializers[name] = half
