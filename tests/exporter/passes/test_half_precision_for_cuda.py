"""Test half precision with the kernels of ONNX Runtime on CUDA: few casts, and the same rounding as theirs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from half_matrix import SkipLayerNormalization
from speech_export.passes.half.convert import round_explicitly, to_half
from speech_export.passes.half.kernels import CUDA, STANDARD, HalfKernels
from speech_export.precision.value_ranges import RangeMeter, nodes_out_of_range
from text_graphs import run_as_it_is, text_graph

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
WIDTH = 8
STATES = f"float[b, n, {WIDTH}]"
WEIGHTS = dict.fromkeys(("scale", "shift", "bias"), (WIDTH,)) | {"packed": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH)}
LAYER = """
  product = MatMul (x, packed)
  part, key, value = Split <axis = -1, num_outputs = 3> (product)
  query = Add (part, bias)
  attended = Attention <q_num_heads = 2, kv_num_heads = 2> (query, key, value, , , , lengths)
  projected = MatMul (attended, out)
  normed, , , total = com.microsoft.SkipLayerNormalization <epsilon = 0.00001> (projected, x, scale, shift, bias)
  bent = Gelu (normed)
  summed = Add (total, bent)
  y = LayerNormalization (summed, scale, shift)
"""


def layer() -> ir.Model:
    """A layer with attention and two norms, as the passes for CUDA leave it."""
    return text_graph(f"{STATES} x, int64[b] lengths", f"{STATES} y", LAYER, WEIGHTS)


def halved(model: ir.Model, kernels: HalfKernels = CUDA, keep_float32: Sequence[str] = ()) -> ir.Model:
    to_half(model, keep_float32, kernels=kernels)
    return model


def rounded(model: ir.Model) -> ir.Model:
    round_explicitly(model)
    return model


def casts(model: ir.Model) -> list[str]:
    return [str(node.name) for node in model.graph if node.op_type == "Cast"]


def test_a_layer_of_fused_operators_needs_no_cast() -> None:
    model = halved(layer())
    assert casts(model) == []
    assert {value.dtype for node in model.graph for value in node.outputs if value.name} == {HALF}


HIDDEN = """
  added = Where (seen, zero, lowest)  mask = Unsqueeze (added, axes)
  y = Attention <q_num_heads = 2, kv_num_heads = 2> (x, x, x, mask)
"""
HIDING = "float zero = {0}, float lowest = {-3.4e38}, int64[1] axes = {1}"


def with_mask(body: str = HIDDEN) -> ir.Model:
    return text_graph(f"{STATES} x, bool[b, n, n] seen", f"{STATES} y", body, {}, HIDING)


def test_a_mask_that_hides_keys_is_made_in_half_with_its_lowest_number(tmp_path: Path) -> None:
    ir.save(with_mask(), tmp_path / "graph.onnx")
    meter = RangeMeter(tmp_path / "graph.onnx")
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 4, WIDTH)).astype(np.float32)}
    feeds["seen"] = np.tril(np.ones((2, 4, 4), dtype=np.bool_))
    meter.add(feeds)
    assert nodes_out_of_range(with_mask().graph, meter.ranges) == []
    model = halved(with_mask())
    assert casts(model) == []
    assert model.graph.initializers["lowest"].const_value.numpy() == np.finfo(np.float16).min
    (expected,) = run_as_it_is(with_mask(), **feeds)
    (found,) = run_as_it_is(rounded(model), x=feeds["x"].astype(np.float16), seen=feeds["seen"])
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=2e-3)


def test_numbers_that_are_added_to_the_scores_besides_a_mask_are_measured(tmp_path: Path) -> None:
    body = HIDDEN.replace("mask = Unsqueeze", "both = Add (added, added)  mask = Unsqueeze").replace(
        "(added, axes)", "(both, axes)"
    )
    ir.save(with_mask(body), tmp_path / "graph.onnx")
    meter = RangeMeter(tmp_path / "graph.onnx")
    meter.add({"x": np.ones((1, 2, WIDTH), dtype=np.float32), "seen": np.zeros((1, 2, 2), dtype=np.bool_)})
    assert "layer.y" in [each.node for each in nodes_out_of_range(with_mask(body).graph, meter.ranges)]


def test_another_target_sums_in_float32_itself() -> None:
    made = {str(node.name): node.outputs[0].dtype for node in halved(layer(), STANDARD).graph}
    assert [made[f"layer.{name}"] for name in ("normed", "y", "attended")] == [FLOAT, FLOAT, HALF]


@pytest.mark.parametrize(
    ("groups", "kernels", "dtype"), [(1, CUDA, HALF), (4, CUDA, FLOAT), (WIDTH, CUDA, FLOAT), (4, STANDARD, HALF)]
)
def test_a_convolution_with_groups_stays_float32_on_cuda(groups: int, kernels: HalfKernels, dtype: ir.DataType) -> None:
    body = f"bent = Gelu (x)  convolved = Conv <group = {groups}> (bent, w)  y = Gelu (convolved)"
    shapes = f"float[b, {WIDTH}, n] x", f"float[b, {WIDTH}, m] y"
    model = halved(text_graph(*shapes, body, {"w": (WIDTH, WIDTH // groups, 3)}), kernels)
    (convolution,) = [node for node in model.graph if node.op_type == "Conv"]
    assert {value.dtype for value in (*convolution.inputs, *convolution.outputs)} == {dtype}
    assert len(casts(model)) == (2 if dtype == FLOAT else 0)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), size=st.sampled_from([0.1, 1.0, 300.0]))
def test_the_sums_of_a_fused_norm_are_rounded_as_its_kernel_rounds_them(seed: int, size: float) -> None:
    body = "y, , , total = com.microsoft.SkipLayerNormalization <epsilon = 0.00001> (x, skip, scale, shift, bias)"
    weights = {name: WEIGHTS[name] for name in ("scale", "shift", "bias")}
    model = halved(text_graph(f"{STATES} x, {STATES} skip", f"{STATES} y, {STATES} total", body, weights))
    random = np.random.default_rng(seed)
    feeds = {name: (random.standard_normal((2, 3, WIDTH)) * size).astype(np.float16) for name in ("x", "skip")}
    evaluator = ReferenceEvaluator(ir.to_proto(model), new_ops=[SkipLayerNormalization])
    normed, total = evaluator.run(["y", "total"], feeds)
    found = run_as_it_is(rounded(model), **feeds)
    np.testing.assert_array_equal(found[1], total)
    np.testing.assert_allclose(found[0].astype(np.float32), normed.astype(np.float32), atol=4e-3)


def test_the_simulation_differs_from_float32_by_the_rounding() -> None:
    random = np.random.default_rng(1)
    x, lengths = random.standard_normal((2, 5, WIDTH)).astype(np.float16), np.array([5, 2])
    (expected,) = run_as_it_is(layer(), x=x.astype(np.float32), lengths=lengths)
    (found,) = run_as_it_is(rounded(halved(layer())), x=x, lengths=lengths)
    assert 1e-5 < np.abs(found.astype(np.float32) - expected).max() < 1e-2


def test_what_overflows_in_a_fused_norm_stays_float32(tmp_path: Path) -> None:
    body = """
      large = MatMul (x, up)  normed = com.microsoft.SkipLayerNormalization (large, x, scale)  y = MatMul (normed, w)
    """

    def graph() -> ir.Model:
        weights = {"up": (WIDTH, WIDTH), "w": (WIDTH, WIDTH), "scale": (WIDTH,)}
        model = text_graph(f"{STATES} x", f"{STATES} y", body, weights)
        up = model.graph.initializers["up"]
        up.const_value = ir.tensor(up.const_value.numpy() * 30000, name="up")
        return model

    ir.save(graph(), tmp_path / "graph.onnx")
    meter = RangeMeter(tmp_path / "graph.onnx")
    x = np.random.default_rng(0).standard_normal((2, 3, WIDTH)).astype(np.float16)
    meter.add({"x": x.astype(np.float32)})
    found = [each.node for each in nodes_out_of_range(graph().graph, meter.ranges)]
    assert found == ["layer.large", "layer.normed"]
    (expected,) = run_as_it_is(graph(), x=x.astype(np.float32))
    (kept,) = run_as_it_is(rounded(halved(graph(), keep_float32=found)), x=x)
    np.testing.assert_allclose(kept.astype(np.float32), expected, atol=5e-3)
