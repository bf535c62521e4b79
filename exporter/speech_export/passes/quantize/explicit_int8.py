"""Explicit int8: standard ONNX that marks which tensors are int8, for an engine that multiplies them as int8.

The input of a product goes through QuantizeLinear and DequantizeLinear with one scale, measured on audio beforehand.
The weight is stored in int8, with one scale for each output, behind a DequantizeLinear. Read literally, the graph
computes in float32 with numbers that fit into int8. TensorRT moves both scales behind the product, and multiplies int8:

https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html

TensorRT requires zero points of 0.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ..patterns.projections import Projection, initializer, remove_unused_initializers
from .dynamic_int8 import LARGEST, quantized_columns
from .embedding_table import embedding_gathers
from .quantizable import Quantizable


def quantize_explicitly(model: ir.Model, found: Quantizable, largest: Mapping[str, float]) -> None:
    """Quantise parts of a graph in place: each activation once and each weight once, whatever reads them.

    Args:
        model: Float32 graph of standard ONNX, opset 19 or later.
        found: Parts to quantise. Its groups are ignored.
        largest: Largest magnitude of each tensor, by name.
    """
    quantizer = _Quantizer(model.graph, largest)
    for head in found.shared_tables:
        gathers = embedding_gathers(head.weight)
        quantizer.quantize_product(head)
        for gather in gathers:
            gather.replace_input_with(0, quantizer.dequantized[head.weight])
    for projection in found.projections:
        quantizer.quantize_product(projection)
    for gather in found.embeddings:
        gather.replace_input_with(0, quantizer.dequantize_weight(gather.inputs[0], 0))
    remove_unused_initializers(model.graph)


class _Quantizer:
    """Adds quantised copies of tensors to a graph.

    Attributes:
        dequantized: Float32 value that went through int8, for each value that was quantised.
    """

    def __init__(self, graph: ir.Graph, largest: Mapping[str, float]) -> None:
        self._graph = graph
        self._largest = largest
        self._zero = initializer(graph, "zero.int8", np.array(0, dtype=np.int8))
        self.dequantized: dict[ir.Value, ir.Value] = {}

    def quantize_product(self, projection: Projection) -> None:
        """Quantise the input and the weight of a projection."""
        product = projection.nodes[0]
        product.replace_input_with(0, self._dequantize_activation(projection.x))
        product.replace_input_with(1, self.dequantize_weight(projection.weight, 0 if projection.transposed else 1))

    def dequantize_weight(self, weight: ir.Value, axis: int) -> ir.Value:
        """Store `weight` in int8 with a scale for each index along `axis`; return it dequantised."""
        if weight not in self.dequantized:
            matrix = weight.const_value.numpy()
            values, scale = quantized_columns(matrix if axis == 1 else matrix.T)
            stored = initializer(self._graph, f"{weight.name}.int8", values if axis == 1 else values.T)
            dequantize = self._dequantize(
                stored, initializer(self._graph, f"{weight.name}.scale", scale), weight, axis=axis
            )
            self._graph.insert_before(self._graph[0], dequantize)
        return self.dequantized[weight]

    def _dequantize_activation(self, x: ir.Value) -> ir.Value:
        if x not in self.dequantized:
            step = np.array(self._largest[str(x.name)] / LARGEST, dtype=np.float32)
            scale = initializer(self._graph, f"{x.name}.scale", step)
            quantize = ir.node("QuantizeLinear", [x, scale, self._zero], name=f"{x.name}/QuantizeLinear")
            _set_output(quantize, x, f"{x.name}.int8", ir.DataType.INT8)
            dequantize = self._dequantize(quantize.outputs[0], scale, x, axis=None)
            producer = x.producer()
            if producer is None:
                self._graph.insert_before(self._graph[0], [quantize, dequantize])
            else:
                self._graph.insert_after(producer, [quantize, dequantize])
        return self.dequantized[x]

    def _dequantize(self, values: ir.Value, scale: ir.Value, original: ir.Value, axis: int | None) -> ir.Node:
        node = ir.node(
            "DequantizeLinear",
            [values, scale, self._zero] if axis is None else [values, scale],
            {} if axis is None else {"axis": axis},
            name=f"{original.name}/DequantizeLinear",
        )
        _set_output(node, original, f"{original.name}.quantized", ir.DataType.FLOAT)
        self.dequantized[original] = node.outputs[0]
        return node


def _set_output(node: ir.Node, like: ir.Value, name: str, dtype: ir.DataType) -> None:
    """Give the output of `node` a name, a dtype, and the shape of `like`."""
    (output,) = node.outputs
    output.name, output.shape, output.type = name, like.shape, ir.TensorType(dtype)
