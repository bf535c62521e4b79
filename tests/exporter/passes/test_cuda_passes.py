"""Test that each pass for CUDA makes the operations that it should, and does not change what a graph computes."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cuda_placement import has_kernel
from speech_export.passes.cuda.channel_norm import spell_out_channel_norms
from speech_export.passes.cuda.frame_counts import count_frames_fast
from speech_export.passes.cuda.key_lengths import count_keys_fast
from speech_export.passes.cuda.needless_biases import drop_needless_biases
from speech_export.passes.cuda.packed_projections import pack_projections
from speech_export.passes.cuda.skip_layer_norm import fuse_skip_layer_norms
from speech_export.passes.plain_shapes import plain_shapes
from text_graphs import operators, run_as_it_is, text_graph

WIDTH = 16
RANDOM = np.random.default_rng(0)
_MATRICES, _VECTORS = ("wq", "wk", "wv", "wo"), ("bq", "bk", "bv", "bo", "scale", "shift")
WEIGHTS = dict.fromkeys(_MATRICES, (WIDTH, WIDTH)) | dict.fromkeys(_VECTORS, (WIDTH,))
SELF_ATTENTION = """
  pq = MatMul (x, wq)  q = Add (pq, bq)
  pk = MatMul (x, wk)  k = Add (pk, bk)
  pv = MatMul (x, wv)  v = Add (bv, pv)
  attended = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v, , , , lengths)
  po = MatMul (attended, wo)  y = Add (po, bo)
"""
INPUTS = f"float[batch, frames, {WIDTH}] x, int64[batch] lengths"
OUTPUT = f"float[batch, frames, {WIDTH}] y"

Array = NDArray[Any]


def parse(body: str, inputs: str = INPUTS, outputs: str = OUTPUT) -> ir.Model:
    """A graph of the body, with those of WEIGHTS that it names."""
    return text_graph(inputs, outputs, body, {name: shape for name, shape in WEIGHTS.items() if name in body})


def audio(batch: int, frames: int, seed: int = 0) -> dict[str, Array]:
    """Input of any lengths, at least one frame each."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((batch, frames, WIDTH)).astype(np.float32)
    return {"x": x, "lengths": random.integers(1, frames + 1, batch)}


SIZES = {"batch": st.integers(1, 3), "frames": st.integers(1, 9), "seed": st.integers(0, 9)}


@settings(deadline=None, max_examples=25)
@given(**SIZES)
def test_one_product_and_one_bias_are_left_of_three(batch: int, frames: int, seed: int) -> None:
    model = parse(SELF_ATTENTION)
    expected = run_as_it_is(model, **audio(batch, frames, seed))
    drop_needless_biases(model)
    pack_projections(model)
    assert operators(model) == {"MatMul": 2, "Split": 1, "Add": 2, "Attention": 1}
    (split,) = [node for node in model.graph if node.op_type == "Split"]
    assert [value.shape[-1] for value in split.outputs] == [WIDTH] * 3
    assert split.inputs[0].producer().name == "layer.pq+pk+pv"
    for wanted, found in zip(expected, run_as_it_is(model, **audio(batch, frames, seed)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "outputs", "left"),
    [
        # Something else reads the keys, and the values.
        (SELF_ATTENTION, f"{OUTPUT}, float[batch, frames, {WIDTH}] k, float[batch, frames, {WIDTH}] v", 4),
        # The output projection has no bias, or something else reads its input; the keys are as they were.
        (SELF_ATTENTION.replace("y = Add (po, bo)", "y = Neg (po)"), OUTPUT, 2),
        (SELF_ATTENTION, f"{OUTPUT}, float[batch, frames, {WIDTH}] attended", 3),
        # Rotated keys: their bias depends on the position.
        (SELF_ATTENTION.replace("k = Add (pk, bk)", "a = Add (pk, bk) k = Mul (a, x)"), OUTPUT, 3),
        (SELF_ATTENTION.replace("kv_num_heads", "softcap = 2.0, kv_num_heads"), OUTPUT, 3),
    ],
    ids=["read elsewhere", "no bias to move to", "attended", "rotated", "capped"],
)
def test_a_bias_that_matters_stays(body: str, outputs: str, left: int) -> None:
    model = parse(body, outputs=outputs)
    expected = run_as_it_is(model, **audio(2, 5))
    drop_needless_biases(model)
    assert operators(model)["Add"] == left
    for wanted, found in zip(expected, run_as_it_is(model, **audio(2, 5)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_biases_of_a_cache_that_keeps_its_place_go_too() -> None:
    """TensorScatter writes new keys and values into a cache; all that it ever holds is without biases."""
    cached = SELF_ATTENTION.replace("(q, k, v, , , , lengths)", "(q, keys, values)").replace(
        "attended =",
        "keys = TensorScatter <axis = 1> (past_k, k, lengths) values = TensorScatter <axis = 1> (past_v, v, lengths) "
        "attended =",
    )
    past = ", ".join(f"float[batch, slots, {WIDTH}] {name}" for name in ("past_k", "past_v"))
    outputs = ", ".join([OUTPUT, *(f"float[batch, slots, {WIDTH}] {name}" for name in ("keys", "values"))])
    model = parse(cached, f"{INPUTS}, {past}", outputs)
    before = parse(cached, f"{INPUTS}, {past}", outputs)
    drop_needless_biases(model)
    assert operators(model)["Add"] == operators(before)["Add"] - 2
    biases = {name: before.graph.initializers[name].const_value.numpy() for name in ("bk", "bv")}
    x = audio(2, 3)["x"]
    slots = RANDOM.standard_normal((2, 2, 7, WIDTH)).astype(np.float32)
    feeds = {"x": x, "lengths": np.array([2, 0])}
    expected = run_as_it_is(before, **feeds, past_k=slots[0], past_v=slots[1])
    found = run_as_it_is(model, **feeds, past_k=slots[0] - biases["bk"], past_v=slots[1] - biases["bv"])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)


def test_products_that_differ_in_width_stay_apart() -> None:
    model = parse("a = MatMul (x, wq) b = MatMul (x, wk) c = MatMul (x, wv) d = Add (a, b) y = Add (c, d)")
    value = model.graph.initializers["wv"]
    value.const_value = ir.tensor(RANDOM.standard_normal((WIDTH, 1)).astype(np.float32), name="wv")
    value.shape = ir.Shape([WIDTH, 1])
    pack_projections(model)
    assert operators(model)["MatMul"] == 3


PRE_NORM = """
  pa = MatMul (x, wq)  a = Add (pa, bq)
  first = Add (x, a)
  normed = LayerNormalization <axis = -1, epsilon = 0.001> (first, scale, shift)
  pb = MatMul (normed, wk)  b = Add (bk, pb)
  second = Add (b, first)
  y = LayerNormalization <axis = 2> (second, scale)
"""
POST_NORM = """
  pa = MatMul (x, wq)  a = Add (pa, bq)
  first = Add (a, x)
  normed = LayerNormalization (first, scale, shift)
  b = MatMul (normed, wk)
  second = Add (normed, b)
  y = LayerNormalization (second, scale, shift)
"""


@settings(deadline=None, max_examples=25)
@given(body=st.sampled_from([PRE_NORM, POST_NORM]), **SIZES)
def test_a_residual_its_bias_and_its_norm_are_one(body: str, batch: int, frames: int, seed: int) -> None:
    model = parse(body, inputs=f"float[batch, frames, {WIDTH}] x")
    x = audio(batch, frames, seed)["x"]
    expected = run_as_it_is(model, x=x)
    fuse_skip_layer_norms(model)
    assert operators(model) == {"MatMul": 2, "SkipLayerNormalization": 2}
    for wanted, found in zip(expected, run_as_it_is(model, x=x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_sum_that_the_graph_returns_is_still_there() -> None:
    model = parse(PRE_NORM, inputs=f"float[batch, frames, {WIDTH}] x", outputs=f"{OUTPUT}, {OUTPUT[:-1]}second")
    x = audio(2, 3)["x"]
    expected = run_as_it_is(model, x=x)
    fuse_skip_layer_norms(model)
    assert operators(model)["SkipLayerNormalization"] == 1
    for wanted, found in zip(expected, run_as_it_is(model, x=x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "norm",
    [
        "total = Add (x, bq) y = LayerNormalization (total, scale)",  # the same vector for each frame: no residual
        "total = Add (x, x) part = Transpose <perm = [1, 0, 2]> (total) y = LayerNormalization (part, scale)",
        "total = Mul (x, x) y = LayerNormalization (total, scale)",
    ],
    ids=["vector", "moved", "product"],
)
def test_a_norm_of_something_else_stays(norm: str) -> None:
    model = parse(norm, inputs=f"float[batch, frames, {WIDTH}] x")
    fuse_skip_layer_norms(model)
    assert operators(model)["LayerNormalization"] == 1


def test_a_norm_with_one_scale_for_all_stays() -> None:
    model = parse("total = Add (x, x) y = LayerNormalization (total, scale)")
    scale = model.graph.initializers["scale"]
    scale.const_value, scale.shape = ir.tensor(np.ones(1, np.float32), name="scale"), ir.Shape([1])
    fuse_skip_layer_norms(model)
    assert operators(model)["LayerNormalization"] == 1


def floor_division(dividend: str, divisor: str, name: str) -> str:
    """A floor division as tracing writes it, from a dividend and a divisor."""
    return f"""
      {name}_less = Less ({dividend}, zero)  {name}_negative = Equal ({name}_less, yes)
      {name}_mod = Mod ({dividend}, {divisor})  {name}_inexact = Cast <to = 9> ({name}_mod)
      {name}_both = And ({name}_negative, {name}_inexact)  {name}_correction = Cast <to = 7> ({name}_both)
      {name}_div = Div ({dividend}, {divisor})  {name} = Sub ({name}_div, {name}_correction)
    """


@settings(deadline=None, max_examples=50)
@given(samples=st.lists(st.integers(-(2**31), 2**31), min_size=1, max_size=5))
def test_frames_are_counted_in_few_operations(samples: list[int]) -> None:
    body = f"""
      a = Sub (samples, kernel) {floor_division("a", "stride", "b")} c = Add (b, one)
      d = Sub (c, kernel) {floor_division("d", "two", "e")} y = Add (e, one)
    """
    constants = (
        "int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64 kernel = {10}, int64 stride = {5}, bool yes = {1}"
    )
    model = text_graph("int64[n] samples", "int64[n] y", body, constants=constants)
    count_frames_fast(model)
    assert operators(model) == {"Add": 3, "Div": 2}
    (found,) = run_as_it_is(model, samples=np.array(samples))
    first = (np.array(samples) - 10) // 5 + 1
    np.testing.assert_array_equal(found, (first - 10) // 2 + 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [("Mod (samples, stride)", "Mod (samples, one)"), ("Less (samples, zero)", "Less (samples, one)")],
    ids=["another remainder", "another sign"],
)
def test_what_only_looks_like_a_floor_division_stays(old: str, new: str) -> None:
    constants = "int64 zero = {0}, int64 one = {1}, int64 stride = {5}, bool yes = {1}"
    body = floor_division("samples", "stride", "y")
    assert old in body
    model = text_graph("int64[n] samples", "int64[n] y", body.replace(old, new), constants=constants)
    before = operators(model)
    count_frames_fast(model)
    assert operators(model) == before


@pytest.mark.parametrize("groups", [WIDTH, 2])
def test_a_group_norm_of_single_channels_is_spelt_out(groups: int) -> None:
    model = parse(
        f"y = GroupNormalization <num_groups = {groups}, epsilon = 0.01> (x, scale, shift)",
        inputs=f"float[batch, {WIDTH}, frames] x",
        outputs=f"float[batch, {WIDTH}, frames] y",
    )
    x = 3 + np.swapaxes(audio(2, 5)["x"], 1, 2).copy()
    expected = run_as_it_is(model, x=x)
    spell_out_channel_norms(model)
    assert ("GroupNormalization" in operators(model)) == (groups != WIDTH)
    assert all(map(has_kernel, operators(model))) == (groups == WIDTH)
    np.testing.assert_allclose(run_as_it_is(model, x=x)[0], expected[0], rtol=1e-5, atol=1e-5)


COUNTED = """
  seen = Cast <to = 9> (mask)  added = Where (seen, zero, lowest)  row = Unsqueeze (added, axes)
  a = Gather <axis = 1> (row, index)  b = Gather <axis = 1> (a, index)
  shown = Equal (b, zero)  one = Cast <to = 7> (shown)  count = ReduceSum <keepdims = 0> (one, last)
  most = Max (count, least)
  y = Attention <q_num_heads = 2, kv_num_heads = 2> (x, x, x, , , , most)
"""
COUNTED_CONSTANTS = (
    "float zero = {0}, float lowest = {-3e38}, int64[2] axes = {1, 2}, int64 index = {0}, int64[1] last = {-1}, "
    "int64 least = {1}"
)


def counted(body: str = COUNTED, constants: str = COUNTED_CONSTANTS) -> ir.Model:
    return text_graph(f"float[b, n, {WIDTH}] x, int64[b, n] mask", f"float[b, n, {WIDTH}] y", body, {}, constants)


def masked(*lengths: int) -> dict[str, Array]:
    x = np.random.default_rng(0).standard_normal((len(lengths), 5, WIDTH)).astype(np.float32)
    return {"x": x, "mask": (np.arange(5) < np.array(lengths)[:, None]).astype(np.int64)}


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ("seen = Cast <to = 9> (mask)", {"ReduceSum": 1, "Max": 1, "Attention": 1}),
        # A mask that is made of something else is counted once it is made.
        ("half = Sub (mask, axes_1)  seen = GreaterOrEqual (half, half_0)", None),
    ],
    ids=["given", "computed"],
)
def test_the_keys_of_each_utterance_are_counted_in_its_mask(source: str, left: dict[str, int] | None) -> None:
    constants = f"{COUNTED_CONSTANTS}, int64 axes_1 = {{1}}, int64 half_0 = {{0}}"
    body = COUNTED.replace("seen = Cast <to = 9> (mask)", source)
    expected = run_as_it_is(counted(body, constants), **masked(5, 3, 0))
    model = counted(body, constants)
    count_keys_fast(model)
    found = operators(model)
    assert found == left if left else not found.keys() & {"Where", "Gather", "Equal", "Unsqueeze"}
    np.testing.assert_array_equal(run_as_it_is(model, **masked(5, 3, 0))[0], expected[0])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("zero, lowest", "lowest, zero"),  # hides where the mask is 1
        ("Where (seen, zero, lowest)", "Where (seen, zero, zero)"),  # hides nothing
        ("Equal (b, zero)", "Equal (b, lowest)"),  # counts what is hidden
    ],
)
def test_what_only_looks_like_a_count_of_keys_stays(old: str, new: str) -> None:
    model = counted(COUNTED.replace(old, new))
    before = operators(model)
    count_keys_fast(model)
    assert operators(model) == before


STATES = ["batch", "frames", WIDTH]
THERE_AND_BACK = """
  bent = Relu (x)
  split = Reshape (bent, by_head)  same = Identity (split)  merged = Reshape (same, whole)
  wide = Shape (merged)  expanded = Expand (merged, wide)
  y = Reshape (expanded, whole)
"""


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (THERE_AND_BACK, {"Relu": 1}),
        # What makes the result is another result, or an input, and keeps its name.
        (THERE_AND_BACK.replace("y =", "z = Neg (bent)  y ="), {"Relu": 1, "Neg": 1}),
        ("z = Relu (x)  y = Reshape (z, whole)", {"Relu": 1, "Reshape": 1}),
        ("z = Relu (x)  y = Reshape (x, whole)", {"Relu": 1, "Reshape": 1}),
    ],
    ids=["nothing else", "another result", "is a result", "is an input"],
)
def test_what_does_not_change_a_shape_goes(body: str, left: dict[str, int]) -> None:
    shape = f"float[batch, frames, {WIDTH}]"
    outputs = f"{shape} y, {shape} z" if "z =" in body else f"{shape} y"
    constants = f"int64[4] by_head = {{0, 0, 2, {WIDTH // 2}}}, int64[3] whole = {{0, 0, {WIDTH}}}"
    model = text_graph(f"{shape} x", outputs, body, {}, constants)
    x = {"x": RANDOM.standard_normal((2, 3, WIDTH)).astype(np.float32)}
    expected, names = run_as_it_is(model, **x), [value.name for value in model.graph.outputs]
    for value in [node.outputs[0] for node in model.graph if node.op_type != "Shape"]:  # as traced: sizes have names
        value.shape = ir.Shape(["batch", "frames", 2, WIDTH // 2] if value.name in ("split", "same") else STATES)
    plain_shapes(model)
    assert operators(model) == left
    assert [value.name for value in model.graph.outputs] == names
    for wanted, found in zip(expected, run_as_it_is(model, **x), strict=True):
        np.testing.assert_array_equal(found, wanted)
