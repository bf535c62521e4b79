"""Dynamic int8: weights in 8 bits, activations quantised at run time.

Each product, with its bias, becomes one `com.microsoft::DynamicQuantizeMatMul`, so that ONNX Runtime has nothing left
to fuse when it loads the graph. ONNX Runtime packs the weights for the processor's own instructions (AMX, VNNI, NEON).
Weights are signed, as those instructions expect. On an x86 processor without them, the product of unsigned and signed
bytes saturates, and the runtime selects another kernel (`backends.onnxruntime`).
"""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..patterns.projections import Projection, initializer, remove_unused_initializers, replace

DOMAIN = "com.microsoft"
LARGEST = 127
_COLUMNS_AT_A_TIME = 8192


def quantize_projections(model: ir.Model, chosen: Iterable[Projection]) -> None:
    """Replace each of `chosen` by its int8 form, with one scale for each column."""
    for projection in chosen:
        weight, scale = quantized_columns(projection.matrix())
        replace_by_int8(
            model.graph,
            projection,
            initializer(model.graph, f"{projection.name}.weight.int8", weight),
            initializer(model.graph, f"{projection.name}.weight.scale", scale),
        )
        remove_unused_initializers(model.graph)
    model.opset_imports[DOMAIN] = 1


def grouped_products(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield every MatMul with constant weights float32 [groups, K, N] of more than one group.

    In graphs for the CPU they replace grouped convolutions.
    """
    for node in graph:
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or not weight.is_initializer() or weight.const_value.dtype != ir.DataType.FLOAT:
            continue
        shape = weight.const_value.shape.numpy()
        if len(shape) == 3 and shape[0] > 1:
            yield node


def quantize_groups(model: ir.Model, chosen: Iterable[ir.Node]) -> None:
    """Replace each of `chosen`, `grouped_products`, by its int8 form; each column of each group has a scale."""
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


def quantized_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise float32 [K, N] symmetrically, with one scale for each column.

    Returns:
        int8 [K, N] and the scales float32 [N].
    """
    # In blocks: the table of a multilingual vocabulary may be as large as the rest of the model.
    values, scale = np.empty(weight.shape, np.int8), np.empty(weight.shape[1], np.float32)
    for start in range(0, weight.shape[1], _COLUMNS_AT_A_TIME):
        block = slice(start, start + _COLUMNS_AT_A_TIME)
        columns = np.ascontiguousarray(weight[:, block])
        largest = np.maximum(columns.max(axis=0), -columns.min(axis=0))
        scale[block] = np.where(largest > 0, largest / LARGEST, 1)
        values[:, block] = np.rint(columns / scale[block]).clip(-LARGEST, LARGEST)
    return values, scale


def int8_node(
    name: str,
    x: ir.Value,
    weight: ir.Value,
    scale: ir.Value,
    bias: ir.Value | None,
) -> ir.Node:
    """Return the node of `x @ (weight × scale) + bias`, for int8 [K, N] and float32 [N]."""
    # Input 3 is the zero point of the weights, which is 0.
    inputs = [x, weight, scale, None, bias] if bias is not None else [x, weight, scale]
    return ir.node("DynamicQuantizeMatMul", inputs, domain=DOMAIN, name=name)


def replace_by_int8(graph: ir.Graph, projection: Projection, weight: ir.Value, scale: ir.Value) -> None:
    """Replace a projection by its int8 form with the given weight int8 [K, N] and scales float32 [N]."""
    name, bias = projection.name, projection.bias_vector()
    node = int8_node(
        name, projection.x, weight, scale, None if bias is None else initializer(graph, f"{name}.bias", bias)
    )
    replace(graph, projection, [node], node.outputs[0])
