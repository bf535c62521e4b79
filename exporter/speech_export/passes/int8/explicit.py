"""Explicit int8: standard ONNX that says which numbers are bytes, for an engine to make products of bytes out of it.

What a product reads goes through QuantizeLinear and DequantizeLinear with one scale, found beforehand on audio; its
weight is stored in int8, with a scale for each output, behind a DequantizeLinear. Taken at its word the graph computes
in float32 with numbers that bytes can hold. TensorRT pulls both scales through the product, and multiplies bytes:
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html
All zero points are 0, which it asks for.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ..patterns.projections import Projection, initializer, remove_unused_initializers
from .dynamic import LARGEST, quantized_columns
from .embedding_table import embedding_gathers


class ExplicitInt8:
    """Quantises a graph in place: each activation once, each weight once, whoever reads them."""

    def __init__(self, graph: ir.Graph, largest: Mapping[str, float]) -> None:
        """Quantise nothing yet.

        Args:
            graph: float32, standard ONNX from opset 19 on.
            largest: magnitudes of the tensors in it, by name.
        """
        self._graph = graph
        self._largest = largest
        self._zero = initializer(graph, "zero.int8", np.array(0, dtype=np.int8))
        self._bytes: dict[ir.Value, ir.Value] = {}

    def projection(self, projection: Projection) -> None:
        """Quantise what a projection reads, and its weight."""
        product = projection.nodes[0]
        product.replace_input_with(0, self._activation(projection.x))
        product.replace_input_with(1, self._weight(projection.weight, 0 if projection.transposed else 1))

    def shared_table(self, head: Projection) -> None:
        """Quantise a projection, and let those that look words up in its weight read the same bytes."""
        gathers = embedding_gathers(head.weight)
        self.projection(head)
        for gather in gathers:
            gather.replace_input_with(0, self._bytes[head.weight])

    def embedding(self, gather: ir.Node) -> None:
        """Quantise a table of words with a scale for each of its rows."""
        gather.replace_input_with(0, self._weight(gather.inputs[0], 0))

    def finish(self) -> None:
        """Drop the weights that nothing reads any more."""
        remove_unused_initializers(self._graph)

    def _activation(self, x: ir.Value) -> ir.Value:
        if x not in self._bytes:
            step = np.array(self._largest[str(x.name)] / LARGEST, dtype=np.float32)
            scale = initializer(self._graph, f"{x.name}.scale", step)
            quantize = ir.node("QuantizeLinear", [x, scale, self._zero], name=f"{x.name}/QuantizeLinear")
            _describe(quantize, x, f"{x.name}.int8", ir.DataType.INT8)
            dequantize = self._dequantize(quantize.outputs[0], scale, x, axis=None)
            producer = x.producer()
            if producer is None:
                self._graph.insert_before(self._graph[0], [quantize, dequantize])
            else:
                self._graph.insert_after(producer, [quantize, dequantize])
        return self._bytes[x]

    def _weight(self, weight: ir.Value, axis: int) -> ir.Value:
        """The numbers of `weight`, from bytes with a scale for each index along `axis`."""
        if weight not in self._bytes:
            matrix = weight.const_value.numpy()
            values, scale = quantized_columns(matrix if axis == 1 else matrix.T)
            stored = initializer(self._graph, f"{weight.name}.int8", values if axis == 1 else values.T)
            dequantize = self._dequantize(
                stored, initializer(self._graph, f"{weight.name}.scale", scale), weight, axis=axis
            )
            self._graph.insert_before(self._graph[0], dequantize)
        return self._bytes[weight]

    def _dequantize(self, values: ir.Value, scale: ir.Value, original: ir.Value, axis: int | None) -> ir.Node:
        node = ir.node(
            "DequantizeLinear",
            [values, scale, self._zero] if axis is None else [values, scale],
            {} if axis is None else {"axis": axis},
            name=f"{original.name}/DequantizeLinear",
        )
        _describe(node, original, f"{original.name}.quantized", ir.DataType.FLOAT)
        self._bytes[original] = node.outputs[0]
        return node


def _describe(node: ir.Node, like: ir.Value, name: str, kind: ir.DataType) -> None:
    (output,) = node.outputs
    output.name, output.shape, output.type = name, like.shape, ir.TensorType(kind)
