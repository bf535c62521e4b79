"""What a graph for ONNX Runtime on CUDA must not have, because a kernel would fail, or be slow without a word."""

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from cuda_placement import has_kernel

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_MASKS = {"MultiHeadAttention": 4, "Attention": 3}
"""Position of the mask in contributed operators."""


def violations(path: Path) -> list[str]:
    """Return what is wrong with the graph in a file; empty if nothing is."""
    return [f"{node.op_type} {node.name}: {problem}" for node in ir.load(path).graph for problem in _problems(node)]


def _problems(node: ir.Node) -> Iterator[str]:
    if not has_kernel(node.op_type):
        yield "not known to have a CUDA kernel"
    in_half = any(value is not None and value.dtype == ir.DataType.FLOAT16 for value in node.inputs)
    if node.op_type in _CONVOLUTIONS and in_half and node.attributes.get_int("group", 1) > 1:
        yield "cuDNN may have no plan for groups in float16"
    if node.domain == "com.microsoft" and node.op_type in _MASKS:
        mask = (*node.inputs, *[None] * 5)[_MASKS[node.op_type]]
        if mask is not None and (mask.shape is None or len(mask.shape) > 1):
            yield "a mask that is no vector means the slowest kernel"
    if node.op_type == "Attention" and not node.domain:
        yield from _attention_problems(node)
    if node.op_type == "Split" and len(node.inputs) > 1 and _is_unequal(node.inputs[1]):
        yield "parts of different sizes are copied by a table from the host"


def _attention_problems(node: ir.Node) -> Iterator[str]:
    mask, lengths = ((*node.inputs, *[None] * 7)[index] for index in (3, 6))
    if any(value.shape is not None and len(value.shape) != 3 for value in node.inputs[:3]):
        yield "states by head are transposed in each call; give them as the products return them"
    if mask is not None and mask.dtype == ir.DataType.BOOL:
        yield "a mask of booleans is converted in every layer"
    if lengths is None and mask is not None and _hides_padding(mask):
        yield "padding as a mask rules out the fastest kernel; give lengths"


def _is_unequal(sizes: ir.Value | None) -> bool:
    return sizes is not None and sizes.const_value is not None and len(set(sizes.const_value.numpy().tolist())) > 1


def _hides_padding(mask: ir.Value) -> bool:
    """Return true for a mask that is the same for all queries and heads."""
    return mask.shape is not None and len(mask.shape) == 4 and list(mask.shape[1:3]) == [1, 1]
