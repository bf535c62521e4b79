"""4-bit weights: each projection becomes one `com.microsoft::MatMulNBits`, with a scale for each block of weights.

A block is `block_size` weights of one output channel. Activations stay float32 outside the operator. With accuracy
level 4 the operator quantises them to int8 inside, block by block and row by row.
"""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..patterns.projections import Projection, initializer, remove_unused_initializers, replace
from .dynamic_int8 import DOMAIN

_ZERO = 8
"""4-bit value that stands for 0."""
_COLUMNS_AT_A_TIME = 4096


def quantize_projections_to_int4(
    model: ir.Model, chosen: Iterable[Projection], block_size: int, accuracy_level: int
) -> None:
    """Replace each of `chosen` by its 4-bit form."""
    graph = model.graph
    for projection in chosen:
        name, bias, matrix = projection.name, projection.bias_vector(), projection.matrix()
        packed, scales = quantized_blocks(matrix, block_size)
        inputs = [
            projection.x,
            initializer(graph, f"{name}.weight.int4", packed),
            initializer(graph, f"{name}.weight.scale", scales),
        ]
        if bias is not None:
            inputs += [None, None, initializer(graph, f"{name}.bias", bias)]
        rows, columns = matrix.shape
        attributes = {"K": rows, "N": columns, "bits": 4, "block_size": block_size, "accuracy_level": accuracy_level}
        node = ir.node("MatMulNBits", inputs, attributes, domain=DOMAIN, name=name)
        replace(graph, projection, [node], node.outputs[0])
        remove_unused_initializers(graph)
    model.opset_imports[DOMAIN] = 1


def quantized_blocks(weight: NDArray[np.float32], block_size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise float32 [K, N] symmetrically, with one scale for each block of `block_size` along K.

    The value farthest from 0 in a block becomes -8, which has no positive counterpart, so that all 16 values are used.

    Returns:
        uint8 [N, blocks, block_size / 2], two values in each byte, the first in the lower half; and scales float32
        [N × blocks]. K is padded with zeros to whole blocks.
    """
    rows, columns = weight.shape
    blocks = -(-rows // block_size)
    packed = np.empty((columns, blocks, block_size // 2), dtype=np.uint8)
    scales = np.empty((columns, blocks), dtype=np.float32)
    for start in range(0, columns, _COLUMNS_AT_A_TIME):
        part = np.ascontiguousarray(weight[:, start : start + _COLUMNS_AT_A_TIME].T)
        part = np.pad(part, ((0, 0), (0, blocks * block_size - rows))).reshape(-1, blocks, block_size)
        farthest = np.take_along_axis(part, np.abs(part).argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
        scale = np.where(farthest != 0, farthest / -_ZERO, 1).astype(np.float32)
        values = (np.rint(part / scale[:, :, None]) + _ZERO).clip(0, 15).astype(np.uint8)
        packed[start : start + _COLUMNS_AT_A_TIME] = values[:, :, ::2] | (values[:, :, 1::2] << 4)
        scales[start : start + _COLUMNS_AT_A_TIME] = scale
    return packed, scales.reshape(-1)
