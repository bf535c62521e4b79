"""Test the int8 and int4 passes on small graphs: exact where they can be, close elsewhere, each weight only once."""

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from small_graphs import (
    IDS,
    RANDOM,
    WIDTH,
    WORDS,
    Graph,
    X,
    attention_inputs,
    language_model,
    operators,
    relative_error,
    run,
    weight,
    weight_bytes,
)
from speech_export.errors import ExportError
from speech_export.passes.patterns.projections import projections
from speech_export.passes.pipeline import passes_to_int8, run_passes
from speech_export.passes.quantize.dynamic_int8 import quantize_projections, quantized_columns
from speech_export.passes.quantize.embedding_table import quantize_embeddings, quantize_shared_tables
from speech_export.passes.quantize.int4 import quantize_projections_to_int4, quantized_blocks
from speech_export.passes.quantize.quantizable import Quantizable
from speech_export.passes.tracer_metadata import packed_name
from speech_export.precision.conversion import matching
from speech_export.precision.options import Precision, PrecisionOptions


def test_no_weight_is_off_by_more_than_half_a_step() -> None:
    matrix = weight(WIDTH, 7)
    matrix[:, 3] = 0
    matrix[:, 5] *= 1e-3
    values, scale = quantized_columns(matrix)
    assert values.dtype == np.int8
    assert np.all(np.abs(values * scale - matrix) <= scale / 2 * 1.001)
    assert np.all(np.abs(values).max(axis=0)[[0, 1, 2, 4, 5, 6]] == 127)  # each column uses all of the range
    assert not values[:, 3].any()


def test_a_projection_is_one_operator_with_its_bias() -> None:
    model = attention_inputs()
    expected = run(model, {"x": X})
    quantize_projections(model, list(projections(model.graph)))
    assert operators(model) == {"DynamicQuantizeMatMul": 4}
    for before, after in zip(expected, run(model, {"x": X}), strict=True):
        assert relative_error(before, after) < 0.02


@pytest.mark.parametrize("transposed", [False, True])
def test_gemm_is_a_projection_too(transposed: bool) -> None:
    graph, matrix = Graph(x=ir.DataType.FLOAT), weight(WIDTH, 24)
    graph.inputs["x"].shape = ir.Shape(["a", WIDTH])
    stored = graph.weight("weight", np.ascontiguousarray(matrix.T) if transposed else matrix)
    bias = graph.weight("bias", weight(1, 24)[0])
    model = graph.model(graph.add("Gemm", graph.inputs["x"], stored, bias, name="c_attn", transB=int(transposed)))
    (expected,) = run(model, {"x": X[0]})
    quantize_projections(model, list(projections(model.graph)))
    assert operators(model) == {"DynamicQuantizeMatMul": 1}
    assert relative_error(expected, run(model, {"x": X[0]})[0]) < 0.02


def test_a_sum_that_is_wanted_before_its_bias_stays() -> None:
    graph = Graph(x=ir.DataType.FLOAT)
    product = graph.add("MatMul", graph.inputs["x"], graph.weight("w", weight(WIDTH, 24)), name="proj")
    total = graph.add("Add", product, graph.weight("b", weight(1, 24)[0]), name="proj/Add")
    model = graph.model(product, total)
    expected = run(model, {"x": X})
    quantize_projections(model, list(projections(model.graph)))
    assert operators(model) == {"DynamicQuantizeMatMul": 1, "Add": 1}
    for before, after in zip(expected, run(model, {"x": X}), strict=True):
        assert relative_error(before, after) < 0.02


@pytest.mark.parametrize("folded", [True, False])
def test_embedding_and_output_projection_share_one_table(folded: bool) -> None:
    model = language_model(tied=True, folded=folded)
    hidden, logits = run(model, {"ids": IDS})
    (head,) = projections(model.graph)
    quantize_shared_tables(model, [head])
    table = WORDS * WIDTH
    assert [
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value.nbytes >= table
    ] == [table]
    assert weight_bytes(model) == table + 4 * WORDS + 4 * WORDS + 8  # scales, bias, and an axis
    assert not any(node.op_type == "Transpose" and node.inputs[0].is_initializer() for node in model.graph)
    found_hidden, found_logits = run(model, {"ids": IDS})
    assert relative_error(hidden, found_hidden) < 0.01
    assert relative_error(logits, found_logits) < 0.02


def test_the_float32_table_is_stored_once_too() -> None:
    model = language_model(tied=True)
    assert weight_bytes(model) == 4 * WORDS * WIDTH + 4 * WORDS
    hidden, logits = run(model, {"ids": IDS})
    table = model.graph.initializers["head"].const_value.numpy().T
    np.testing.assert_array_equal(hidden, table[IDS])
    bias = model.graph.initializers["final_logits_bias"].const_value.numpy()
    np.testing.assert_allclose(logits, table[IDS] @ table.T + bias, rtol=0, atol=1e-4)


def test_an_embedding_of_its_own_has_a_scale_for_each_word() -> None:
    model = language_model(tied=False)
    hidden, _ = run(model, {"ids": IDS})
    (gather,) = (node for node in model.graph if node.op_type == "Gather")
    quantize_embeddings(model, [gather])
    found, _ = run(model, {"ids": IDS})
    assert np.all(np.abs(found - hidden) <= np.abs(hidden).max(axis=-1, keepdims=True) / 254 * 1.001)


@pytest.mark.parametrize("block_size", [16, 32])
@pytest.mark.parametrize("columns", [24, 5000])
def test_four_bits_are_packed_as_the_operator_reads_them(block_size: int, columns: int) -> None:
    graph, rows = Graph(x=ir.DataType.FLOAT), WIDTH + 8  # not a whole number of blocks
    graph.inputs["x"].shape = ir.Shape(["a", "b", rows])
    matrix = weight(rows, columns)
    product = graph.add("MatMul", graph.inputs["x"], graph.weight("w", matrix), name="proj")
    model = graph.model(graph.add("Add", product, graph.weight("b", weight(1, columns)[0]), name="proj/Add"))
    bias = model.graph.initializers["b"].const_value.numpy()
    quantize_projections_to_int4(model, list(projections(model.graph)), block_size, accuracy_level=1)
    packed, scales = quantized_blocks(matrix, block_size)
    values = np.stack([packed & 15, packed >> 4], axis=-1).reshape(columns, -1).astype(np.float32) - 8
    dequantized = (values * scales.reshape(columns, -1).repeat(block_size, axis=1))[:, :rows].T
    assert relative_error(matrix, dequantized) < 0.15
    x = RANDOM.standard_normal((2, 3, rows)).astype(np.float32)
    np.testing.assert_allclose(run(model, {"x": x})[0], x @ dequantized + bias, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (1, 0, 0)),
        ({"op_kinds": ("matmul",)}, (0, 1, 0)),
        ({"op_kinds": ("embedding",)}, (0, 0, 0)),
    ],
)
def test_what_a_tied_model_offers(options: dict[str, Any], expected: tuple[int, int, int]) -> None:
    model = language_model(tied=True)
    found = Quantizable.find(model.graph, PrecisionOptions(precision="int8", **options), WORDS)
    assert (len(found.shared_tables), len(found.projections), len(found.embeddings)) == expected
    assert len(found.sizes()) == sum(expected)


def quantize(model: ir.Model, precision: Precision, kept: Collection[str] = ()) -> None:
    options = PrecisionOptions(precision=precision)
    found = Quantizable.find(model.graph, options, WORDS).without(kept)
    run_passes(model, passes_to_int8(found, precision, options, WORDS))


def test_int4_keeps_the_output_projection_in_int8() -> None:
    for tied in (True, False):
        model = language_model(tied)
        quantize(model, "int4")
        assert operators(model)["DynamicQuantizeMatMul"] == 1
        assert operators(model)["MatMulNBits"] == 0


def test_what_is_kept_is_not_touched() -> None:
    model = attention_inputs()
    quantize(model, "int8", {"layers.0.k_proj", "layers.0.out_proj"})
    assert operators(model) == {"DynamicQuantizeMatMul": 2, "MatMul": 2}


def test_patterns_name_modules() -> None:
    names = {"layers.0.k_proj", "layers.0.q_proj", "layers.10.k_proj"}
    assert matching(["layers.0.*"], names) == {"layers.0.k_proj", "layers.0.q_proj"}
    assert matching(["*.k_proj", "layers.0.q_proj"], names) == names
    with pytest.raises(ExportError, match=r"'lm_head' matches nothing that is converted; there are layers.0.k_proj, "):
        matching(["*", "lm_head"], names)


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj", "q_proj+k_proj+v_proj"])
def test_a_pattern_for_one_of_the_packed_modules_keeps_their_product(part: str) -> None:
    packed = packed_name([f"layers.0.{name}" for name in ("q_proj", "k_proj", "v_proj")])
    names = {packed, "layers.0.q_proj", "layers.0.k_proj", "layers.0.v_proj", "layers.1.q_proj+k_proj+v_proj"}
    assert packed in matching([f"*.0.{part}"], names)
    assert matching([f"layers.1.{part}"], names) == {"layers.1.q_proj+k_proj+v_proj"}
    with pytest.raises(ExportError, match="matches nothing"):
        matching(["*.out_proj"], names)
