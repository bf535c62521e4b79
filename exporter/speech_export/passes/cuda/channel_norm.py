"""A group norm of one channel a group, as operations for which ONNX Runtime has kernels on a GPU.

It has none for GroupNormalization, and that for InstanceNormalization is of opset 6, which is not taken for opset 22
(ONNX Runtime 1.30): the norm behind the first convolution of Wav2Vec2-base and HuBERT-base would run on the CPU.
"""

import numpy as np
import onnx_ir as ir

_SPELT_OUT = "/ChannelNormalization/"


def is_of_channel_norm(node: ir.Node) -> bool:
    """Return whether a node is one of those that a norm was replaced by."""
    return _SPELT_OUT in str(node.name)


def spell_out_channel_norms(model: ir.Model) -> None:
    """Replace every GroupNormalization that has as many groups as channels, over [batch, channels, frames]."""
    for node in [node for node in model.graph if node.op_type == "GroupNormalization"]:
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        if shape is None or len(shape) != 3 or shape[1] != node.attributes.get_int("num_groups"):
            continue
        added = _ChannelNorm(model.graph, node).nodes
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], added, node.outputs, added[-1].outputs)


class _ChannelNorm:
    """The nodes that take the place of a norm."""

    def __init__(self, graph: ir.Graph, norm: ir.Node) -> None:
        self._graph, self._type = graph, norm.inputs[0].type
        self._name = str(norm.name).removesuffix("/GroupNormalization") + _SPELT_OUT
        self.nodes: list[ir.Node] = []
        x, scale, bias = norm.inputs
        last = self._constant("last", np.array([-1], dtype=np.int64))
        epsilon = self._constant("epsilon", np.array(norm.attributes.get_float("epsilon", 1e-5), dtype=np.float32))
        centred = self._add("Sub", x, self._add("ReduceMean", x, last, keepdims=1))
        variance = self._add("ReduceMean", self._add("Mul", centred, centred), last, keepdims=1)
        deviation = self._add("Sqrt", self._add("Add", variance, epsilon))
        factor = self._add("Div", self._add("Unsqueeze", scale, last), deviation)
        self._add("Add", self._add("Mul", centred, factor), self._add("Unsqueeze", bias, last))

    def _add(self, operator: str, *inputs: ir.Value | None, **attributes: int) -> ir.Value:
        name = f"{self._name}{operator}_{len(self.nodes)}"
        node = ir.node(operator, inputs, attributes, name=name)
        node.outputs[0].name, node.outputs[0].type = name, self._type
        self.nodes.append(node)
        return node.outputs[0]

    def _constant(self, name: str, value: np.ndarray) -> ir.Value:
        tensor = ir.tensor(value, name=f"{self._name}{name}")
        constant = ir.Value(
            name=tensor.name, shape=ir.Shape(value.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self._graph.register_initializer(constant)
        return constant
