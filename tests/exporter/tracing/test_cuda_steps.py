"""Test that the layers of a step for CUDA have no more operators than they need."""

from collections import Counter
from functools import cache

import onnx_ir as ir
import pytest

from composites import composite
from speech_export.passes.half.convert import to_half
from speech_export.passes.half.kernels import CUDA
from speech_export.passes.pipeline import optimize
from speech_export.tracing import best_words
from speech_export.tracing.facts import decoder_facts
from speech_export.tracing.rewrites import own_attention
from speech_export.tracing.rewrites.rewritten import rewritten_for, rewritten_for_tracing
from speech_export.tracing.tracer import OPSETS, step_of, trace
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, LOGITS, TOP_LOGPROBS

LAYER = Counter(
    {"MatMul": 6, "Add": 3, "Split": 1, "TensorScatter": 2, "Attention": 2, "SkipLayerNormalization": 3, "Gelu": 1}
)
"""Three projections for self-attention in one, and the other five; biases of queries and before the activation."""
FULL = pytest.mark.full
FAMILIES = [
    "bert",
    "mbart",
    "gpt2",
    "trocr",
    pytest.param("bart", marks=FULL),
    pytest.param("whisper", marks=FULL),
    pytest.param("xglm", marks=FULL),
    pytest.param("mvp", marks=FULL),
    pytest.param("rembert", marks=FULL),
    pytest.param("roberta-prelayernorm", marks=FULL),
]


@cache
def step(family: str) -> ir.Model:
    """The step of a tiny composite with two layers, in float32."""
    return traced_step(family)


def traced_step(family: str, top_k: int = 4) -> ir.Model:
    model = composite(family)
    facts = decoder_facts(model, top_k, shared=True)
    with rewritten_for_tracing(model), rewritten_for("cuda", model, facts.cache):
        traced = trace(step_of(model, facts), "input_values", facts.layers, OPSETS["cuda"])
    optimize(traced, DECODER_WITH_PAST, "cuda", facts)
    return traced


def layer(model: ir.Model) -> list[ir.Node]:
    """The nodes from the first that writes to the cache of one layer to the same of the next.

    Those that compute with integers are left out: the lengths, which all layers share.
    """
    nodes = list(model.graph)
    first, _, second, _ = [index for index, node in enumerate(nodes) if node.op_type == "TensorScatter"]
    return [node for node in nodes[first:second] if node.outputs[0].dtype != ir.DataType.INT64]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_has_eighteen_operators(family: str) -> None:
    assert Counter(node.op_type for node in layer(step(family))) == LAYER


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_in_half_precision_has_no_others(family: str) -> None:
    model = step(family).clone()
    to_half(model, (), {LOGITS, TOP_LOGPROBS}, CUDA)
    nodes = layer(model)
    assert Counter(node.op_type for node in nodes) == LAYER
    assert {value.dtype for node in nodes for value in node.outputs if value.name} == {ir.DataType.FLOAT16}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_layers_share_a_mask_and_lengths(family: str) -> None:
    own, cross = ([node for node in step(family).graph if node.op_type == "Attention"][i::2] for i in (0, 1))
    (mask,) = {node.inputs[3] for node in own}
    assert [str(size) for size in mask.shape] == ["batch", "1", "queries", "slots"]
    assert all(len(node.inputs) == 4 for node in own)
    assert {node.inputs[3] for node in cross if len(node.inputs) > 3} <= {None}
    lengths = {node.inputs[6] for node in cross if len(node.inputs) > 6}
    assert len(lengths) == (0 if family == "whisper" else 1)


def test_a_decoder_with_an_unknown_attention_keeps_its_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_attention, "_LIKE_BART", frozenset())
    found = Counter(node.op_type for node in traced_step("trocr").graph)
    assert (found["Attention"], found["Softmax"]) == (0, 4)


def test_twelve_layers_and_a_large_vocabulary_have_257_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the decoder of mBART has them, counted in one of two layers; its 90 words are cut into parts all the same."""
    monkeypatch.setattr(best_words, "_WORTHWHILE", 80)
    monkeypatch.setattr(best_words, "_IN_ORDER", 40)
    model = traced_step("mbart", top_k=12)
    assert len(list(model.graph)) + 10 * LAYER.total() == 257
    to_half(model, (), {LOGITS, TOP_LOGPROBS}, CUDA)
    assert len(list(model.graph)) + 10 * LAYER.total() == 260
