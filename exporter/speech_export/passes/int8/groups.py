"""Dynamic int8 of what has weights of its own for each group of channels: a grouped convolution as matrix products."""

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from ..patterns.projections import initializer, remove_unused_initializers
from .dynamic import DOMAIN, int8_node, quantized_columns


def grouped_products(graph: ir.Graph) -> Iterator[ir.Node]:
    """Every MatMul with constant weights float32 [groups, K, N] of more than one group."""
    for node in graph:
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or not weight.is_initializer() or weight.const_value.dtype != ir.DataType.FLOAT:
            continue
        shape = weight.const_value.shape.numpy()
        if len(shape) == 3 and shape[0] > 1:
            yield node


def quantize_groups(model: ir.Model, chosen: Iterable[ir.Node]) -> None:
    """Replace each of `chosen` by its int8 form, with a scale for each column of each group."""
    graph = model.graph
    for product in chosen:
        weight = product.inputs[1].const_value.numpy()
        groups, rows, columns = weight.shape
        values, scale = quantized_columns(weight.swapaxes(0, 1).reshape(rows, groups * columns))
        values = values.reshape(rows, groups, columns).swapaxes(0, 1)
        node = int8_node(
            str(product.name),
            product.inputs[0],
            initializer(graph, f"{product.name}.weight.int8", values),
            initializer(graph, f"{product.name}.weight.scale", scale.reshape(groups, 1, columns)),
            None,
        )
        ir.convenience.replace_nodes_and_values(graph, product, [product], [node], product.outputs, node.outputs)
    remove_unused_initializers(graph)
    model.opset_imports[DOMAIN] = 1
