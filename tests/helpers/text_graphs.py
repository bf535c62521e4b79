"""Graphs in ONNX's text form, with random weights, as they are after tracing: nodes have names, and tensors shapes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

HEADER = '<ir_version: 10, opset_import: ["" : 24, "com.microsoft" : 1]>'

Array = NDArray[Any]


def text_graph(
    inputs: str, outputs: str, body: str, weights: Mapping[str, Sequence[int]] | None = None, constants: str = ""
) -> ir.Model:
    """A graph whose nodes are named `layer.` and what they make; `weights` has the shapes of random ones."""
    weights = weights or {}
    given = ", ".join([inputs, *(f"float[{', '.join(map(str, shape))}] {name}" for name, shape in weights.items())])
    text = f"{HEADER} g ({given}) => ({outputs}) <{constants}> {{ {body} }}"
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    random = np.random.default_rng(0)
    for value in [value for value in model.graph.inputs if value.name in weights]:
        shape = weights[str(value.name)]
        value.const_value = ir.tensor(
            (random.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32), name=value.name
        )
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    for node in model.graph:
        node.name = f"layer.{node.outputs[0].name}"
        for output in node.outputs:
            if output.name and output.dtype is None:  # of an operator that ONNX does not know
                output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), node.inputs[0].shape
    return model


def operators(model: ir.Model) -> Counter[str]:
    """Number of nodes of each operator."""
    return Counter(node.op_type for node in model.graph)


def run_as_it_is(model: ir.Model, **feeds: Array) -> list[Array]:
    """The outputs on the CPU, without ONNX Runtime's optimisations."""
    proto, options = ir.to_proto(model), onnxruntime.SessionOptions()
    onnx.checker.check_model(proto)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))
