"""Dynamic int8: weights in 8 bits, activations quantised as they come.

Each projection becomes one `com.microsoft::DynamicQuantizeMatMul` with its bias inside, which ONNX Runtime runs as it
is: nothing is left to fuse when the graph is loaded. It packs the weights for the processor's own instructions (AMX,
VNNI, NEON). Weights are signed, as those instructions want them; where an x86 processor has none of these, the product
of unsigned and signed bytes saturates, and the runtime asks for another one (`engines.onnxruntime`).
"""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..patterns.projections import Projection, initializer, remove_unused_initializers, replace

DOMAIN = "com.microsoft"
LARGEST = 127
_COLUMNS_AT_A_TIME = 8192


def quantize_projections(model: ir.Model, chosen: Iterable[Projection]) -> None:
    """Replace each of `chosen` by its int8 form."""
    for projection in chosen:
        weight, scale = quantized_columns(projection.matrix())
        _replace(model.graph, projection, weight, scale)
        remove_unused_initializers(model.graph)
    model.opset_imports[DOMAIN] = 1


def quantized_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise float32 [K, N] symmetrically, with one scale for each column.

    Returns:
        int8 [K, N] and the scales float32 [N].
    """
    # Some at a time: the table of a multilingual vocabulary may be as large as all the rest of the model.
    values, scale = np.empty(weight.shape, np.int8), np.empty(weight.shape[1], np.float32)
    for start in range(0, weight.shape[1], _COLUMNS_AT_A_TIME):
        some = slice(start, start + _COLUMNS_AT_A_TIME)
        columns = np.ascontiguousarray(weight[:, some])
        scale[some] = _column_scales(columns)
        values[:, some] = _rounded(columns, scale[some])
    return values, scale


def int8_node(
    name: str,
    x: ir.Value,
    weight: ir.Value,
    scale: ir.Value,
    bias: ir.Value | None,
) -> ir.Node:
    """`x @ (weight × scale) + bias`, for int8 [K, N] and float32 [N]."""
    # Input 3 is the zero point of the weights, which is 0.
    inputs = [x, weight, scale, None, bias] if bias is not None else [x, weight, scale]
    return ir.node("DynamicQuantizeMatMul", inputs, domain=DOMAIN, name=name)


def _column_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the int8 values of each column of [K, N] are to be multiplied by, float32 [N]."""
    largest = np.maximum(weight.max(axis=0), -weight.min(axis=0))
    scale: NDArray[np.float32] = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return scale


def _rounded(weight: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.int8]:
    """The nearest int8 values of [K, N] for the scales [N] of its columns."""
    nearest: NDArray[np.int8] = np.rint(weight / scale).clip(-LARGEST, LARGEST).astype(np.int8)
    return nearest


def _replace(graph: ir.Graph, projection: Projection, weight: NDArray[np.int8], scale: NDArray[np.float32]) -> None:
    name, bias = projection.name, projection.bias_vector()
    node = int8_node(
        name,
        projection.x,
        initializer(graph, f"{name}.weight.int8", weight),
        initializer(graph, f"{name}.weight.scale", scale),
        None if bias is None else initializer(graph, f"{name}.bias", bias),
    )
    replace(graph, projection, [node], node.outputs[0])
