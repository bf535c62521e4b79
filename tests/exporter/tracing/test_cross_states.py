"""Test that a step reads the keys and values of cross-attention as they are: a copy would cost as much as attending."""

import onnx_ir as ir
import pytest

from composites import DECODERS, composite
from speech_export.passes.pipeline import optimize
from speech_export.precision.options import Target
from speech_export.tracing.facts import decoder_facts
from speech_export.tracing.rewrites.rewritten import rewritten_for, rewritten_for_tracing
from speech_export.tracing.tracer import OPSETS, step_of, trace
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST

BY_DEFAULT = {"bert", "gpt2", "rembert", "whisper"}
VIEWS = {"Identity", "Reshape", "Squeeze", "Unsqueeze"}
"""Operators that read the memory of their input as it is."""
COPIES = {"Cast", "Concat", "Expand", "Gather", "Mul", "Pad", "Slice", "Split", "Tile", "Transpose"}


def copies(model: ir.Model) -> list[ir.Node]:
    """The nodes that copy keys or values of cross-attention, or what was made of them without a copy."""
    states = {value for value in model.graph.inputs if str(value.name).startswith("cross.")}
    found = []
    for node in model.graph:
        if states.intersection(node.inputs):
            if node.op_type in VIEWS:
                states.update(node.outputs)
            found += [node] * (node.op_type in COPIES)
    return found


def step(family: str, target: Target) -> ir.Model:
    model = composite(family)
    facts = decoder_facts(model, 4, shared=target == "cuda")
    with rewritten_for_tracing(model), rewritten_for(target, model, facts.cache):
        traced = trace(step_of(model, facts), "input_values", facts.layers, OPSETS[target])
    optimize(traced, DECODER_WITH_PAST, target, facts)
    return traced


@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt"])
@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[] if name in BY_DEFAULT else pytest.mark.full) for name in DECODERS],
)
def test_a_step_copies_no_keys_or_values_of_cross_attention(family: str, target: Target) -> None:
    found = copies(step(family, target))
    if (
        target == "tensorrt"
    ):  # standard ONNX has no other product with transposed keys; TensorRT multiplies them as they are
        found = [
            node for node in found if node.attributes.get_ints("perm", ()) != (0, 1, 3, 2) or users(node) != ["MatMul"]
        ]
    assert not [f"{node.op_type} {node.name}" for node in found]


def users(node: ir.Node) -> list[str]:
    return [user.op_type for user, _ in node.outputs[0].uses()]
