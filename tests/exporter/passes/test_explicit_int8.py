"""Test the explicit int8 pass on small graphs: exact integer sums, each weight quantised once, standard ONNX only."""

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from small_graphs import IDS, WIDTH, WORDS, Graph, X, language_model, operators, weight, weight_bytes
from speech_export.passes.pipeline import passes_to_explicit_int8, run_passes
from speech_export.passes.quantize.dynamic_int8 import quantized_columns
from speech_export.passes.quantize.quantizable import Quantizable
from speech_export.precision.options import PrecisionOptions

Array = NDArray[Any]
OPTIONS = PrecisionOptions(precision="int8", target="tensorrt")
LARGEST = {"x": 2.0, "layers.0.v_proj.output": 9.0}


def in_bytes(x: Array, largest: float) -> Array:
    """By ONNX's definition; what is larger than `largest` is cut off."""
    step = np.float32(largest / 127)
    return np.clip(np.rint(x / step), -128, 127).astype(np.float32) * step


def weight_in_bytes(matrix: Array) -> Array:
    values, scale = quantized_columns(matrix)
    return values * scale


def run(model: ir.Model, **feed: Array) -> list[Array]:
    """As the graph says, with nothing fused."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options).run(None, feed))


def attention_inputs() -> tuple[ir.Model, dict[str, Array]]:
    """Queries with a bias and values without, of one input; an output projection of the values; and the weights."""
    weights = {"q": weight(WIDTH, 24), "b": weight(1, 24)[0], "v": weight(WIDTH, 40), "o": weight(40, WIDTH)}
    graph = Graph(x=ir.DataType.FLOAT)
    x, (q, b, v, o) = graph.inputs["x"], (graph.weight(name, array) for name, array in weights.items())
    query = graph.add("Add", graph.add("MatMul", x, q, name="layers.0.q_proj"), b, name="layers.0.q_proj/Add")
    value = graph.add("MatMul", x, v, name="layers.0.v_proj")
    return graph.model(query, value, graph.add("MatMul", value, o, name="layers.0.out_proj")), weights


def quantized(model: ir.Model, largest: dict[str, float], kept: Collection[str] = ()) -> ir.Model:
    found = Quantizable.find(model.graph, OPTIONS, WORDS)
    run_passes(model, passes_to_explicit_int8(found.without(kept), largest))
    return model


def test_products_are_those_of_bytes() -> None:
    model, weights = attention_inputs()
    query, value, out = run(quantized(model, LARGEST), x=X)
    assert np.abs(X).max() > LARGEST["x"]
    x = in_bytes(X, LARGEST["x"])
    np.testing.assert_allclose(query, x @ weight_in_bytes(weights["q"]) + weights["b"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(value, x @ weight_in_bytes(weights["v"]), rtol=0, atol=1e-4)
    value = in_bytes(value, LARGEST["layers.0.v_proj.output"])
    np.testing.assert_allclose(out, value @ weight_in_bytes(weights["o"]), rtol=0, atol=1e-4)


def test_what_many_read_is_quantised_once() -> None:
    model, _ = attention_inputs()
    quantized(model, LARGEST)
    assert operators(model) == {"QuantizeLinear": 2, "DequantizeLinear": 5, "MatMul": 3, "Add": 1}
    assert {node.domain for node in model.graph} == {""}
    weights = WIDTH * 24 + WIDTH * 40 + 40 * WIDTH
    scales = 24 + 40 + WIDTH + 2
    assert weight_bytes(model) == weights + 4 * (scales + 24) + 1  # a bias, and the zero


@pytest.mark.parametrize("transposed", [False, True])
def test_gemm_keeps_its_layout(transposed: bool) -> None:
    graph, matrix = Graph(x=ir.DataType.FLOAT), weight(WIDTH, 24)
    graph.inputs["x"].shape = ir.Shape(["a", WIDTH])
    stored = graph.weight("weight", np.ascontiguousarray(matrix.T) if transposed else matrix)
    bias = graph.weight("bias", weight(1, 24)[0])
    model = graph.model(graph.add("Gemm", graph.inputs["x"], stored, bias, name="c_attn", transB=int(transposed)))
    (found,) = run(quantized(model, {"x": 3.0}), x=X[0])
    expected = in_bytes(X[0], 3.0) @ weight_in_bytes(matrix) + bias.const_value.numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_embedding_and_output_projection_share_one_table() -> None:
    model = language_model(tied=True)
    table, bias = (model.graph.initializers[name].const_value.numpy() for name in ("head", "final_logits_bias"))
    largest = {value.name: 2.5 for node in model.graph for value in (*node.inputs, *node.outputs)}
    assert Quantizable.find(model.graph, OPTIONS, WORDS).without_scale(largest) == frozenset()
    quantized(model, largest)
    hidden, logits = run(model, ids=IDS)
    expected = weight_in_bytes(table).T
    np.testing.assert_array_equal(hidden, expected[IDS])
    np.testing.assert_allclose(logits, in_bytes(hidden, 2.5) @ expected.T + bias, rtol=0, atol=1e-4)
    assert weight_bytes(model) == table.size + 4 * (WORDS + WORDS + 1) + 1


def test_an_embedding_of_its_own_has_a_scale_for_each_word() -> None:
    model = language_model(tied=False)
    table = model.graph.initializers["embedding"].const_value.numpy()
    largest = {value.name: 2.5 for node in model.graph for value in (*node.inputs, *node.outputs)}
    quantized(model, largest, {"lm_head"})
    np.testing.assert_array_equal(run(model, ids=IDS)[0], weight_in_bytes(table.T).T[IDS])


def test_what_is_kept_stays_float32() -> None:
    model, weights = attention_inputs()
    quantized(model, LARGEST, {"layers.0.q_proj"})
    query, _, _ = run(model, x=X)
    np.testing.assert_allclose(query, X @ weights["q"] + weights["b"], rtol=0, atol=1e-4)
    assert operators(model)["QuantizeLinear"] == 2


@pytest.mark.parametrize("largest", [0.0, math.inf, math.nan])
def test_what_has_no_scale_stays_float32_and_is_named(largest: float) -> None:
    model, _ = attention_inputs()
    measured = LARGEST | {"layers.0.v_proj.output": largest}
    unscalable = Quantizable.find(model.graph, OPTIONS, WORDS).without_scale(measured)
    assert unscalable == {"layers.0.out_proj"}
    quantized(model, measured, unscalable)
    assert operators(model) == {"QuantizeLinear": 1, "DequantizeLinear": 3, "MatMul": 3, "Add": 1}
