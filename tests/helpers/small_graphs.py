"""Small ONNX graphs, built node by node, to test passes on."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from speech_export.passes.shared_weights import share_transposed_weights
from speech_runtime.system import bytes_saturate

WIDTH, WORDS = 32, 200
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((3, 5, WIDTH)).astype(np.float32)
IDS = RANDOM.integers(0, WORDS, (2, 3))


def weight(rows: int, columns: int) -> NDArray[np.float32]:
    return RANDOM.standard_normal((rows, columns)).astype(np.float32)


class Graph:
    """Builds a model node by node."""

    def __init__(self, **inputs: ir.DataType) -> None:
        self.inputs = {
            name: ir.Value(
                name=name,
                type=ir.TensorType(kind),
                shape=ir.Shape(["a", "b", WIDTH][: 3 if kind == ir.DataType.FLOAT else 2]),
            )
            for name, kind in inputs.items()
        }
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []

    def weight(self, name: str, array: NDArray[Any]) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        self.weights.append(
            ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
        )
        return self.weights[-1]

    def add(self, op_type: str, *inputs: ir.Value, name: str, **attributes: Any) -> ir.Value:
        node = ir.node(op_type, inputs, attributes, name=name)
        node.outputs[0].name, node.outputs[0].type = f"{name}.output", ir.TensorType(ir.DataType.FLOAT)
        self.nodes.append(node)
        return node.outputs[0]

    def model(self, *outputs: ir.Value) -> ir.Model:
        graph = ir.Graph(
            list(self.inputs.values()), outputs, nodes=self.nodes, initializers=self.weights, opset_imports={"": 20}
        )
        return ir.Model(graph, ir_version=10)


def run(model: ir.Model, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if bytes_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")
    proto = ir.to_proto(model).SerializeToString()
    return list(onnxruntime.InferenceSession(proto, options).run(None, dict(inputs)))


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def weight_bytes(model: ir.Model) -> int:
    return sum(value.const_value.nbytes for value in model.graph.initializers.values())


def relative_error(expected: NDArray[Any], found: NDArray[Any]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def attention_inputs() -> ir.Model:
    """Queries with a bias, keys and values without: three projections of one input, and one of another."""
    graph = Graph(x=ir.DataType.FLOAT)
    x = graph.inputs["x"]
    query = graph.add("MatMul", x, graph.weight("q.weight", weight(WIDTH, 24)), name="layers.0.q_proj")
    query = graph.add("Add", query, graph.weight("q.bias", weight(1, 24)[0]), name="layers.0.q_proj/Add")
    key = graph.add("MatMul", x, graph.weight("k.weight", weight(WIDTH, 24)), name="layers.0.k_proj")
    value = graph.add("MatMul", x, graph.weight("v.weight", weight(WIDTH, 40)), name="layers.0.v_proj")
    out = graph.add("MatMul", value, graph.weight("o.weight", weight(40, WIDTH)), name="layers.0.out_proj")
    return graph.model(query, key, out)


def language_model(tied: bool, folded: bool = True) -> ir.Model:
    """An embedding and an output projection with a bias, as traced.

    Args:
        tied: they share a table.
        folded: it is there twice, as the tracer leaves a small one; else behind a Transpose, as it leaves a large one.
    """
    graph = Graph(ids=ir.DataType.INT64)
    table = weight(WORDS, WIDTH)
    embedding = graph.weight("embedding", table)
    hidden = graph.add("Gather", embedding, graph.inputs["ids"], name="embed_tokens", axis=0)
    hidden.shape = ir.Shape(["a", "b", WIDTH])
    if folded:
        head = graph.weight("head", np.ascontiguousarray(table.T) if tied else weight(WIDTH, WORDS))
    else:
        head = graph.add("Transpose", embedding, name="lm_head/Transpose", perm=[1, 0])
    logits = graph.add("MatMul", hidden, head, name="lm_head")
    logits = graph.add("Add", logits, graph.weight("final_logits_bias", weight(1, WORDS)), name="lm_head/Add")
    model = graph.model(hidden, logits)
    share_transposed_weights(model)
    return model
