"""Test that the passes over the step graph for the CPU do not change its outputs."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from composites import composite
from speech_export.passes.cpu.cross_attention import fuse_cross_attention
from speech_export.passes.cpu.in_place_cache import _no_sink, keep_cache_in_place
from speech_export.passes.cpu.scaled_queries import scale_queries
from speech_export.passes.patterns.projections import initializer, projections
from speech_export.passes.plain_shapes import plain_shapes
from speech_export.passes.quantize.dynamic_int8 import quantize_projections
from speech_export.passes.quantize.packed_queries import pack_queries
from speech_export.passes.tracer_metadata import name_after_modules
from speech_export.tracing.facts import decoder_facts, encoder_facts
from speech_export.tracing.rewrites.rewritten import rewritten_for_tracing
from speech_export.tracing.tracer import save, trace, traceables
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, PAST_LENGTH

FAMILIES = ("bert", "gpt2", "mbart", "whisper")
LAYERS = 2
Run = Callable[[dict[str, int]], list[NDArray[Any]]]


@cache
def _traced(family: str) -> bytes:
    model = composite(family)
    encoder, decoder = encoder_facts(model.encoder), decoder_facts(model, top_k=4)
    with rewritten_for_tracing(model):
        step = next(graph for graph in traceables(model, encoder, decoder) if graph.name == DECODER_WITH_PAST)
        traced = trace(step, encoder.input_name, decoder.layers)
    name_after_modules(traced)
    content: bytes = ir.to_proto(traced).SerializeToString()
    return content


def step_graph(family: str) -> ir.Model:
    """`decoder_with_past` of a tiny random composite, as traced."""
    return ir.from_proto(_parsed(_traced(family)))


def _parsed(content: bytes) -> Any:
    return onnx.load_from_string(content)


def random_inputs(session: onnxruntime.InferenceSession, sizes: dict[str, int]) -> dict[str, NDArray[Any]]:
    """Inputs of given sizes; the last frames of the second utterance are padding."""
    random, inputs = np.random.default_rng(0), {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else sizes[size] for size in value.shape]
        if value.name == "encoder_attention_mask":
            inputs[value.name] = np.ones(shape, dtype=np.int64)
            inputs[value.name][1:, 1:] = 0
        elif value.name == PAST_LENGTH:
            inputs[value.name] = np.array([sizes["past"]])
        elif value.name == "beam_idx":
            inputs[value.name] = random.integers(0, sizes["past_beams"], shape)
        elif value.type == "tensor(int64)":
            inputs[value.name] = random.integers(3, 90, shape)
        else:
            inputs[value.name] = random.standard_normal(shape).astype(np.float32)
    return inputs


def runner(model: ir.Model) -> Run:
    """Runs `model` on random inputs of given sizes; the last frames of the second utterance are padding."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)

    def run(sizes: dict[str, int]) -> list[NDArray[Any]]:
        return list(session.run(None, random_inputs(session, sizes)))

    return run


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def sizes(past: int = 3, **others: int) -> dict[str, int]:
    given = {"batch": 2, "beams": 3, "past_beams": 2, "tokens": 1, "frames": 7, "past": past, **others}
    return {**given, "rows": given["batch"] * given["beams"], "room": past + given["tokens"] + 4}


@cache
def _runners(family: str) -> tuple[Run, Run, Counter[str], Counter[str]]:
    before, after = step_graph(family), step_graph(family)
    fuse_cross_attention(after, LAYERS)
    plain_shapes(after)
    return runner(before), runner(after), operators(before), operators(after)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_fewer_operations(family: str) -> None:
    _, _, before, after = _runners(family)
    assert after["MultiHeadAttention"] == LAYERS
    assert after["Softmax"] == before["Softmax"] - LAYERS
    assert after["Reshape"] < before["Reshape"]
    assert sum(after.values()) < sum(before.values())


@settings(deadline=None, max_examples=30)
@given(
    family=st.sampled_from(FAMILIES),
    batch=st.integers(1, 3),
    beams=st.integers(1, 4),
    past_beams=st.integers(1, 4),
    tokens=st.integers(1, 5),
    frames=st.integers(1, 9),
    past=st.integers(0, 6),
)
def test_it_says_the_same(family: str, **given: int) -> None:
    before, after, _, _ = _runners(family)
    chosen = sizes(**given)
    for expected, found in zip(before(chosen), after(chosen), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_cross_attention_with_another_mask_stays_as_it_is() -> None:
    model = step_graph("bert")
    mask = next(value for value in model.graph.inputs if value.name == "encoder_attention_mask")
    users = tuple(mask.uses())
    one = ir.Value(name="one", const_value=ir.tensor([1], name="one"), type=ir.TensorType(ir.DataType.INT64))
    model.graph.register_initializer(one)
    inverse = ir.node("Sub", [one, mask], name="inverse")
    inverse.outputs[0].name = "inverse"
    inverse.outputs[0].shape, inverse.outputs[0].type = mask.shape, mask.type
    model.graph.insert_before(model.graph[0], inverse)
    for node, index in users:
        node.replace_input_with(index, inverse.outputs[0])
    before = operators(model)
    fuse_cross_attention(model, LAYERS)
    assert operators(model) == before


@pytest.mark.parametrize("in_place", [True, False])
def test_queries_keys_and_values_in_one_product_are_the_very_same(in_place: bool) -> None:
    def quantized(packed: bool) -> ir.Model:
        model = step_graph("bert")
        if in_place:
            assert keep_cache_in_place(model, LAYERS, 3, 8, None)
        quantize_projections(model, list(projections(model.graph)))
        if packed:
            pack_queries(model)
        return model

    apart, together = quantized(packed=False), quantized(packed=True)
    kind = "DynamicQuantizeMatMul"
    assert operators(together)[kind] == operators(apart)[kind] - 2 * LAYERS
    assert operators(together)["Split"] - operators(apart)["Split"] == (0 if in_place else LAYERS)
    for expected, found in zip(runner(apart)(sizes()), runner(together)(sizes()), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("family", ["bert", "gpt2", "bart", "whisper", "roberta"])
def test_rows_whose_pasts_have_other_lengths_are_computed_as_alone(family: str) -> None:
    model = step_graph(family)
    fuse_cross_attention(model, LAYERS)
    past = next(value for value in model.graph.inputs if value.name == "past.0.key")
    assert keep_cache_in_place(model, LAYERS, past.shape[2], past.shape[4], None)
    assert next(value for value in model.graph.inputs if value.name == PAST_LENGTH).shape == ["batch"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    lengths, chosen = [0, 5, 3], sizes(batch=3, beams=2, tokens=1)
    inputs = random_inputs(session, chosen) | {PAST_LENGTH: np.array(lengths)}
    together = session.run(["logits"], inputs)[0]
    for row, length in enumerate(lengths):
        own = {
            name: array[2 * row : 2 * row + 2] if name.startswith("past.") else array[row : row + 1]
            for name, array in inputs.items()
        }
        assert own[PAST_LENGTH].tolist() == [length]
        np.testing.assert_array_equal(session.run(["logits"], own)[0][0], together[row])


def test_a_graph_that_computes_with_the_length_of_its_past_keeps_one_for_all() -> None:
    model = step_graph("gpt2")
    length = ir.node(
        "Shape", [next(value for value in model.graph.inputs if value.name == "past.0.key")], {"start": 3, "end": 4}
    )
    scale = ir.node("Cast", [length.outputs[0]], {"to": ir.DataType.FLOAT.value})
    last = model.graph[-1]
    logits = next(value for value in model.graph.outputs if value.name == "logits")
    product = ir.node("Mul", [logits.producer().inputs[0], scale.outputs[0]])
    for node in (length, scale, product):
        model.graph.insert_after(last, node)
        last = node
    product.outputs[0].name, product.outputs[0].type = "scaled", logits.type
    model.graph.outputs.append(product.outputs[0])
    assert keep_cache_in_place(model, LAYERS, 3, 8, None)
    assert next(value for value in model.graph.inputs if value.name == PAST_LENGTH).shape == [1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scale_of_queries_is_in_their_weights(family: str) -> None:
    def step(scaled: bool) -> ir.Model:
        model = step_graph(family)
        fuse_cross_attention(model, LAYERS)
        past = next(value for value in model.graph.inputs if value.name == "past.0.key")
        keep_cache_in_place(model, LAYERS, past.shape[2], past.shape[4], None)
        if scaled:
            scale_queries(model)
        plain_shapes(model)
        return model

    before, after = step(scaled=False), step(scaled=True)
    attentions = [node for node in after.graph if node.op_type in ("GroupQueryAttention", "MultiHeadAttention")]
    assert len(attentions) >= LAYERS
    assert {node.attributes.get_float("scale") for node in attentions} == {1.0}
    for chosen in (sizes(), sizes(tokens=4, past=0), sizes(beams=1, batch=1)):
        for expected, found in zip(runner(before)(chosen), runner(after)(chosen), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_queries_that_something_else_reads_keep_their_scale() -> None:
    model = step_graph("bert")
    assert keep_cache_in_place(model, LAYERS, 3, 8, None)
    attention = next(node for node in model.graph if node.op_type == "GroupQueryAttention")
    model.graph.outputs.append(attention.inputs[0])
    scale_queries(model)
    scales = [node.attributes.get_float("scale") for node in model.graph if node.op_type == "GroupQueryAttention"]
    assert scales == [pytest.approx(8**-0.5), *[1.0] * (LAYERS - 1)]


@pytest.mark.parametrize("head_dim", [8, 64])
def test_large_heads_take_the_kernel_with_all_scores_at_once_which_says_the_same(head_dim: int) -> None:
    def attention(sink: bool) -> ir.Model:
        rows, lengths = ("rows", 1, 2 * 3 * head_dim), ("rows", 2, "room", head_dim)
        floats = {"states": rows, "past.0.key": lengths, "past.0.value": lengths}
        inputs = [
            ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
            for name, shape in floats.items()
        ]
        graph = ir.Graph(inputs, [], nodes=[], name="attention", opset_imports={"": 20, "com.microsoft": 1})
        extra = _no_sink(graph, 2, head_dim) if sink else []
        constants = {"last": np.full(2, 6, np.int32), "total": np.array([7], np.int32)}
        last, total = (initializer(graph, name, array) for name, array in constants.items())
        node = ir.node(
            "GroupQueryAttention",
            [inputs[0], None, None, *inputs[1:], last, total, *extra],
            {"num_heads": 2, "kv_num_heads": 2},
            domain="com.microsoft",
            num_outputs=3,
        )
        graph.append(node)
        for value in node.outputs:
            value.type = ir.TensorType(ir.DataType.FLOAT)
        graph.outputs.extend(node.outputs)
        return ir.Model(graph, ir_version=10)

    with_sink = attention(sink=True)
    assert len(next(iter(with_sink.graph)).inputs) == (12 if head_dim >= 64 else 7)
    chosen = {"rows": 2, "room": 9}
    for expected, found in zip(runner(attention(sink=False))(chosen), runner(with_sink)(chosen), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_was_beside_a_graph_is_in_the_one_that_is_made_of_it(tmp_path: Path) -> None:
    """A graph that was too large for one file, and is small enough after a conversion."""
    model = step_graph("bert")
    expected = runner(model)(sizes())
    (tmp_path / "float32").mkdir()
    ir.save(model, tmp_path / "float32" / "step.onnx", external_data="step.onnx.data")
    beside = ir.load(tmp_path / "float32" / "step.onnx")
    in_use = [value.const_value.numpy() for value in beside.graph.initializers.values()]  # as passes leave views behind
    save(beside, tmp_path / "step.onnx")
    del in_use
    assert [path.name for path in tmp_path.glob("step*")] == ["step.onnx"]
    for wanted, found in zip(expected, runner(ir.load(tmp_path / "step.onnx"))(sizes()), strict=True):
        np.testing.assert_array_equal(found, wanted)
