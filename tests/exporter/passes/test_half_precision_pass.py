"""Test the half-precision pass on graphs of a few nodes: the nodes that it converts and those it leaves in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from speech_export.passes.half.convert import round_explicitly, to_half
from speech_export.precision.value_ranges import RangeMeter, ValueRange, nodes_out_of_range

HEADER = '<ir_version: 10, opset_import: ["" : 20]>'
FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
LOWEST = "-3.4028234663852886e38"
ATTENTION = f"""
g (float[n, 4] query, float[m, 4] key, bool[m] heard) => (float[n, 4] context)
<float zero = {{0}}, float low = {{{LOWEST}}}>
{{
  transposed = Transpose <perm = [1, 0]> (key)
  scores = MatMul (query, transposed)
  added = Where (heard, zero, low)
  masked = Add (scores, added)
  weights = Softmax (masked)
  context = MatMul (weights, key)
}}
"""

Array = NDArray[Any]


def parse(text: str) -> ir.Model:
    """A model of a graph in ONNX's text form; nodes are named after what they make."""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(HEADER + text)))
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


def halved(text: str, keep: tuple[str, ...] = (), float32: tuple[str, ...] = ()) -> ir.Model:
    model = parse(text)
    to_half(model, keep, float32)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


def on_onnxruntime(model: ir.Model, **feeds: Array) -> Array:
    """Return the outputs of ONNX Runtime on a CPU, which computes in float32 where it can."""
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def as_on_gpus(model: ir.Model, **feeds: Array) -> Array:
    """The same with every half-precision result rounded."""
    rounded, settings = model.clone(), onnxruntime.SessionOptions()
    round_explicitly(rounded)
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = ir.to_proto(rounded)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def by_definition(model: ir.Model, **feeds: Array) -> Array:
    """Computed node by node as ONNX defines it, half where the graph says half."""
    return ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)[0]


def dtypes(model: ir.Model) -> dict[str, ir.DataType]:
    """Types of what each node makes, casts aside."""
    return {str(node.name): node.outputs[0].dtype for node in model.graph if node.op_type != "Cast"}


def measured(text: str, directory: Path, **feeds: Array) -> tuple[ir.Model, dict[str, ValueRange]]:
    model = parse(text)
    ir.save(model, directory / "graph.onnx")
    meter = RangeMeter(directory / "graph.onnx")
    meter.add(feeds)
    return model, meter.ranges


RUN = pytest.mark.parametrize("run", [on_onnxruntime, as_on_gpus, by_definition])


def test_weights_products_and_states_are_half() -> None:
    model = halved("g (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul (x, w) }")
    assert [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)] == [HALF, HALF]
    assert [(weight.name, weight.dtype) for weight in model.graph.initializers.values()] == [("w", HALF)]
    assert [node.op_type for node in model.graph] == ["MatMul"]


def test_the_interface_may_stay_float32() -> None:
    text = "g (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul (x, w) }"
    model = halved(text, float32=("x", "y"))
    assert [(value.name, value.dtype) for value in (*model.graph.inputs, *model.graph.outputs)] == [
        ("x", FLOAT),
        ("y", FLOAT),
    ]
    assert [node.op_type for node in model.graph] == ["Cast", "MatMul", "Cast"]


def test_a_value_wanted_in_float32_by_many_is_cast_once() -> None:
    model = halved(
        """g (float[n] x) => (float[n] y)
        { a = Exp (x) b = Softmax (a) c = Softmax (a) d = Exp(a) e = Add(b, c) y = Add (e, d) }"""
    )
    assert [str(node.name) for node in model.graph if node.op_type == "Cast" and node.inputs[0].name == "a"] == [
        "a.single/Cast"
    ]


def test_a_weight_wanted_both_ways_is_there_both_ways() -> None:
    text = """g (float[n, 2] x) => (float[n, 2] y)
    <float[2, 2] w = {1.0001, 2, 3, 4}> { a = MatMul (x, w) b = MatMul (x, w) c = Softmax (b) y = Mul (a, c) }"""
    model = halved(text, keep=("b",))
    weights = {name: (value.dtype, value.const_value.numpy()[0, 0]) for name, value in model.graph.initializers.items()}
    assert weights == {"w": (FLOAT, np.float32(1.0001)), "w.half": (HALF, np.float16(1.0001))}


@RUN
def test_a_row_with_everything_masked_is_the_mean_and_not_nan(run: Any) -> None:
    model = halved(ATTENTION)
    random = np.random.default_rng(0)
    query, key = (random.standard_normal((rows, 4)).astype(np.float16) * 30 for rows in (3, 5))
    found = run(model, query=query, key=key, heard=np.zeros(5, dtype=np.bool_))
    np.testing.assert_allclose(found, np.broadcast_to(key.mean(axis=0), (3, 4)), atol=0.02)


@RUN
def test_scores_are_masked_and_weighed_in_float32(run: Any) -> None:
    model = halved(ATTENTION)
    made = dtypes(model)
    assert [made[name] for name in ("added", "masked", "weights")] == [FLOAT] * 3
    assert [made[name] for name in ("scores", "context")] == [HALF] * 2
    query, key = np.eye(4, dtype=np.float16) * 9, np.eye(4, dtype=np.float16) * 9
    found = run(model, query=query, key=key, heard=np.array([True, True, False, False]))
    np.testing.assert_allclose(found[0], [9, 0, 0, 0], atol=1e-2)
    np.testing.assert_allclose(found[3], [4.5, 4.5, 0, 0], atol=1e-2)


@RUN
def test_positions_stay_exact(run: Any) -> None:
    text = """g (int64[n] ids, float[n] x) => (float[n] y) <float step = {0.001}>
    { position = Cast <to = 1> (ids) angle = Mul (position, step) wave = Sin (angle) y = Mul (x, wave) }"""
    model = halved(text)
    made = dtypes(model)
    assert (made["angle"], made["wave"], made["y"]) == (FLOAT, FLOAT, HALF)
    ids = np.array([2049, 4099, 30001])
    found = run(model, ids=ids, x=np.ones(3, dtype=np.float16))
    np.testing.assert_allclose(found, np.sin(ids * 0.001), atol=1e-3)


@RUN
def test_a_distance_that_is_limited_by_a_repeated_number_stays_exact(run: Any) -> None:
    """A fraction just below the next bucket, 30.999, is 31 in half."""
    model = halved("""
    g (int64[n] distances) => (int64[n] buckets)
    <float share = {30.999}, float last = {60.0}>
    {
      counted = Cast <to = 1> (distances)
      shares = Mul (counted, share)
      shape = Shape (shares)
      limit = Expand (last, shape)
      limited = Min (shares, limit)
      buckets = Cast <to = 7> (limited)
    }
    """)
    np.testing.assert_array_equal(run(model, distances=np.array([1, 2, 0])), [30, 60, 0])


def test_copies_of_a_float32_input_stay_float32() -> None:
    """Its numbers may be too large for half though none was seen: a calibration past is empty."""
    text = """g (float[n, 2] past, int64[m] beam_idx) => (float[m, 2] y)
    { picked = Gather (past, beam_idx) weights = Softmax (picked) y = Neg (weights) }"""
    assert dtypes(halved(text, float32=("past",))) == {"picked": FLOAT, "weights": FLOAT, "y": HALF}
    assert dtypes(halved(text)) == {"picked": HALF, "weights": FLOAT, "y": HALF}


def test_rows_of_a_table_are_no_positions() -> None:
    text = """g (int64[n] ids) => (float[n, 2] y) <float[3, 2] table = {1, 2, 3, 4, 5, 6}, float[2, 2] w = {1, 2, 3, 4}>
    { row = Gather (table, ids) y = MatMul (row, w) }"""
    assert set(dtypes(halved(text)).values()) == {HALF}


@RUN
def test_squares_of_a_normalisation_do_not_overflow(run: Any) -> None:
    model = halved(
        "g (float[n, 4] x) => (float[n, 4] y) <float[4] one = {1, 1, 1, 1}> { y = LayerNormalization (x, one) }"
    )
    found = run(model, x=np.array([[3000, -3000, 3000, -3000]], dtype=np.float16))
    np.testing.assert_allclose(found, [[1, -1, 1, -1]], atol=1e-3)


def test_ranges_are_those_of_the_tensors(tmp_path: Path) -> None:
    text = """g (float[n, 2] x) => (float[m] y) <float[2] w = {3, 0.0001}, int64[1] all = {-1}>
    { a = Mul (x, w) flat = Reshape (a, all) y = Neg (flat) }"""
    x = np.array([[1, 1], [-70000, 0]], dtype=np.float32)
    _, found = measured(text, tmp_path, x=x)
    expected = {"x": x, "w": np.array([3, 1e-4], np.float32), "a": x * np.array([3, 1e-4], np.float32)}
    for name, value in {**expected, "flat": expected["a"], "y": -expected["a"]}.items():
        seen = ValueRange.of(value)
        assert found[name].largest == seen.largest
        assert found[name].total == pytest.approx(seen.total)
        assert found[name].overflows == seen.overflows == (name != "w")


def test_ranges_are_those_of_all_runs(tmp_path: Path) -> None:
    ir.save(parse("g (float[n] x) => (float[n] y) { y = Neg (x) }"), tmp_path / "graph.onnx")
    meter = RangeMeter(tmp_path / "graph.onnx")
    for largest in (1, 70000, 3):
        meter.add({"x": np.full(2, largest, dtype=np.float32)})
    assert (meter.ranges["y"].largest, meter.ranges["y"].total) == (70000, 140008)


def test_zeros_are_no_reason(tmp_path: Path) -> None:
    text = "g (float[n] x) => (float[n] y) { a = Relu (x) y = Neg (a) }"
    model, ranges = measured(text, tmp_path, x=np.full(3, -1, dtype=np.float32))
    assert nodes_out_of_range(model.graph, ranges) == []


def test_empty_tensors_have_no_range(tmp_path: Path) -> None:
    _, found = measured("g (float[n] x) => (float[n] y) { y = Neg (x) }", tmp_path, x=np.zeros(0, dtype=np.float32))
    assert not any(seen.overflows or seen.underflows for seen in found.values())


@pytest.mark.parametrize(
    ("array", "overflows", "underflows"),
    [
        ([0.0, 0.0], False, False),
        ([1.0, -8.0, 1e-7], False, False),
        ([15000.0], False, False),
        ([17000.0], True, False),
        ([np.inf], True, True),
        ([np.nan], True, False),
        ([3e-8, 1e-7], False, True),
        ([1e-30], False, True),
    ],
)
def test_what_half_holds(array: list[float], overflows: bool, underflows: bool) -> None:
    seen = ValueRange.of(np.array(array, dtype=np.float32))
    assert (seen.overflows, seen.underflows) == (overflows, underflows)


def test_all_numbers_of_a_large_weight_count() -> None:
    array = np.full((2, 3_000_000), 0.5, dtype=np.float32)
    array[-1, -1] = -17008  # a half
    assert ValueRange.of(array) == ValueRange(17008.0, 0.5 * (array.size - 1) + 17008, 0.0)


def test_an_overflow_in_the_middle_keeps_its_neighbours_in_float32(tmp_path: Path) -> None:
    text = """g (float[n, 2] x) => (float[n, 2] y)
    <float[2, 2] up = {9000, 0, 0, 9000}, float[2, 2] down = {0.001, 0, 0, 0.001}>
    { a = Neg (x) large = MatMul (a, up) bent = Relu (large) small = MatMul (bent, down) y = Neg (small) }"""
    x = np.array([[-9, 5], [7, -8]], dtype=np.float32)
    model, ranges = measured(text, tmp_path, x=x)
    found = nodes_out_of_range(model.graph, ranges)
    assert [(node.node, node.reason) for node in found] == [(name, "too large") for name in ("large", "bent", "small")]
    assert not np.isfinite(as_on_gpus(halved(text), x=x.astype(np.float16))).all()
    kept = halved(text, keep=tuple(node.node for node in found))
    expected = on_onnxruntime(parse(text), x=x)
    for run in (on_onnxruntime, as_on_gpus, by_definition):
        np.testing.assert_allclose(run(kept, x=x.astype(np.float16)), expected, rtol=1e-3)


def test_an_epsilon_that_half_rounds_to_zero_stays(tmp_path: Path) -> None:
    text = """g (float[n] x) => (float[n] y) <float epsilon = {1e-12}>
    { a = Abs (x) b = Add (a, epsilon) y = Div (x, b) }"""
    model, ranges = measured(text, tmp_path, x=np.array([1, 2], dtype=np.float32))
    assert [node.node for node in nodes_out_of_range(model.graph, ranges)] == ["b"]


def test_a_tiny_bias_is_no_reason(tmp_path: Path) -> None:
    text = "g (float[n, 2] x) => (float[n, 2] y) <float[2] bias = {1e-9, 2e-9}> { y = Add (x, bias) }"
    model, ranges = measured(text, tmp_path, x=np.ones((1, 2), dtype=np.float32))
    assert nodes_out_of_range(model.graph, ranges) == []
