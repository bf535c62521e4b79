"""Queries, keys and values of a layer in one int8 product, where its attention takes them as they come out of it.

`com.microsoft::GroupQueryAttention` does, so that nothing is split again: the input is quantised once, and a small
decoder waits for one product instead of three. Each column has a scale of its own: the numbers are the very same.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .int8 import int8_node
from .projections import initializer

_WEIGHT, _SCALE, _BIAS = 1, 2, 4
"""Inputs of `DynamicQuantizeMatMul`."""


def pack_queries(model: ir.Model) -> None:
    """Join the three products before every GroupQueryAttention that are all int8, of the same input."""
    for node, products in list(_attentions(model.graph)):
        product = _joined(model.graph, products)
        model.graph.insert_before(node, product)
        for index, value in enumerate((product.outputs[0], None, None)):
            node.replace_input_with(index, value)
    RemoveUnusedNodesPass()(model)


def _attentions(graph: ir.Graph) -> Iterator[tuple[ir.Node, list[ir.Node]]]:
    for node in graph:
        if node.op_type != "GroupQueryAttention":
            continue
        products = [value.producer() for value in node.inputs[:3] if value is not None]
        int8 = len(products) == 3 and all(product.op_type == "DynamicQuantizeMatMul" for product in products)
        if int8 and all(product.inputs[0] is products[0].inputs[0] for product in products):
            yield node, products


def _joined(graph: ir.Graph, products: list[ir.Node]) -> ir.Node:
    names = [str(product.name) for product in products]
    name = "+".join([names[0], *(name.rpartition(".")[2] for name in names[1:])])

    def joined(suffix: str, index: int) -> ir.Value:
        return initializer(graph, f"{name}.{suffix}", np.concatenate([_constant(each, index) for each in products], -1))

    weight, scale, bias = joined("weight.int8", _WEIGHT), joined("weight.scale", _SCALE), joined("bias", _BIAS)
    node = int8_node(name, products[0].inputs[0], weight, scale, bias)
    node.outputs[0].name = f"{name}.packed"
    return node


def _constant(product: ir.Node, index: int) -> NDArray[np.generic]:
    """An input of a product; a bias that it does not have is 0."""
    if index < len(product.inputs):
        given: NDArray[np.generic] = product.inputs[index].const_value.numpy()
        return given
    return np.zeros(product.inputs[_WEIGHT].const_value.shape[1], dtype=np.float32)
