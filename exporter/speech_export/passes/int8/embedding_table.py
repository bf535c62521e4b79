"""Embeddings in int8; one that is the output projection too shares its table with it.

Each word has a scale: of its row as an embedding, of its column as an output. So one table [width, vocabulary] and one
vector of scales serve both, on disk and in memory.
"""

import numpy as np
import onnx_ir as ir

from ..patterns.projections import Projection, initializer, remove_unused_initializers, replace
from .dynamic import int8_node, quantized_columns


def embedding_gathers(table: ir.Value) -> list[ir.Node]:
    """The Gathers that read vectors off a table: rows of [vocabulary, width], or columns of its transpose."""
    return [node for node, index in table.uses() if node.op_type == "Gather" and index == 0]


def quantize_shared_table(model: ir.Model, head: Projection) -> None:
    """Replace the weight [width, vocabulary] of `head` by int8, for it and for the embedding that reads its columns."""
    graph, table = model.graph, head.weight
    words, scales = quantized_columns(head.matrix())
    weight = initializer(graph, f"{head.name}.weight.int8", words)
    scale = initializer(graph, f"{head.name}.weight.scale", scales)
    bias = head.bias_vector()
    node = int8_node(
        head.name, head.x, weight, scale, None if bias is None else initializer(graph, f"{head.name}.bias", bias)
    )
    replace(graph, head, [node], node.outputs[0])
    for gather in embedding_gathers(table):
        _dequantize(graph, gather, weight, scale)
    remove_unused_initializers(graph)


def quantize_embedding(model: ir.Model, gather: ir.Node) -> None:
    """Replace the table [vocabulary, width] that only `gather` reads by int8."""
    graph, table = model.graph, gather.inputs[0]
    words, scales = quantized_columns(table.const_value.numpy().T)
    weight = initializer(graph, f"{gather.name}.weight.int8", words.T)
    _dequantize(graph, gather, weight, initializer(graph, f"{gather.name}.weight.scale", scales))
    remove_unused_initializers(graph)


def _dequantize(graph: ir.Graph, gather: ir.Node, weight: ir.Value, scale: ir.Value) -> None:
    """Let `gather` read int8, and multiply what it finds by the words' scales once their vectors are the last axis."""
    axis, (found,), indices = gather.attributes.get_int("axis", 0), gather.outputs, gather.inputs[1]
    gather.replace_input_with(0, weight)
    found.type = ir.TensorType(ir.DataType.INT8)
    if axis == 1:  # the Transpose that `share_transposed_weights` put behind it
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
