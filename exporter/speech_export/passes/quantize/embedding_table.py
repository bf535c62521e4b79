"""Embeddings in int8. An embedding that is the output projection too shares one table with it.

Each word has a scale: of its row in the embedding, of its column in the output projection. So one table
[width, vocabulary] and one vector of scales serve both, on disk and in memory.
"""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from ..patterns.projections import Projection, initializer, remove_unused_initializers
from .dynamic_int8 import quantized_columns, replace_by_int8


def embedding_gathers(table: ir.Value) -> list[ir.Node]:
    """Return the Gathers that read vectors from a table: rows of [vocabulary, width], or columns of its transpose."""
    return [node for node, index in table.uses() if node.op_type == "Gather" and index == 0]


def quantize_shared_tables(model: ir.Model, heads: Iterable[Projection]) -> None:
    """Quantise the weight [width, vocabulary] of each head, for it and for the embedding that reads its columns."""
    graph = model.graph
    for head in heads:
        gathers = embedding_gathers(head.weight)
        words, scales = quantized_columns(head.matrix())
        weight = initializer(graph, f"{head.name}.weight.int8", words)
        scale = initializer(graph, f"{head.name}.weight.scale", scales)
        replace_by_int8(graph, head, weight, scale)
        for gather in gathers:
            _dequantize(graph, gather, weight, scale)
        remove_unused_initializers(graph)


def quantize_embeddings(model: ir.Model, gathers: Iterable[ir.Node]) -> None:
    """Quantise the table [vocabulary, width] of each of `gathers`, which must be its only reader."""
    graph = model.graph
    for gather in gathers:
        words, scales = quantized_columns(gather.inputs[0].const_value.numpy().T)
        weight = initializer(graph, f"{gather.name}.weight.int8", words.T)
        _dequantize(graph, gather, weight, initializer(graph, f"{gather.name}.weight.scale", scales))
        remove_unused_initializers(graph)


def _dequantize(graph: ir.Graph, gather: ir.Node, weight: ir.Value, scale: ir.Value) -> None:
    """Let `gather` read int8, and multiply the vectors by their words' scales once they are the last axis."""
    axis, (found,), indices = gather.attributes.get_int("axis", 0), gather.outputs, gather.inputs[1]
    gather.replace_input_with(0, weight)
    found.type = ir.TensorType(ir.DataType.INT8)
    if axis == 1:  # `share_transposed_weights` put a Transpose behind the Gather.
        ((transpose, _),) = found.uses()
        (found,) = transpose.outputs
        found.type = ir.TensorType(ir.DataType.INT8)
    cast = ir.node("Cast", [found], {"to": ir.DataType.FLOAT}, name=f"{gather.name}/dequantize/Cast")
    last = initializer(graph, f"{gather.name}.axis", np.array([-1], dtype=np.int64))
    scales = ir.node("Gather", [scale, indices], {"axis": 0}, name=f"{gather.name}/dequantize/Gather")
    column = ir.node("Unsqueeze", [scales.outputs[0], last], name=f"{gather.name}/dequantize/Unsqueeze")
    product = ir.node("Mul", [cast.outputs[0], column.outputs[0]], name=f"{gather.name}/dequantize/Mul")
    (output,) = product.outputs
    output.shape, output.type = found.shape, ir.TensorType(ir.DataType.FLOAT)
    ir.convenience.replace_all_uses_with(found, output, replace_graph_outputs=True)
    cast.replace_input_with(0, found)
    graph.insert_after(found.producer(), [cast, scales, column, product])
    output.name, found.name = found.name, f"{gather.name}.int8"
