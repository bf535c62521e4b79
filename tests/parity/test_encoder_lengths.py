"""Test encoder graphs against torch at lengths that were not traced: odd, even, one frame, very uneven batches."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from transformers import SpeechEncoderDecoderModel

from composites import composite
from matrix import Array
from speech_export.passes.unmasked_attention import drop_needless_masks
from speech_export.precision.options import Target
from speech_export.tracing.facts import decoder_facts, encoder_facts
from speech_export.tracing.rewrites.rewritten import rewritten_for_cpu, rewritten_for_tracing
from speech_export.tracing.tracer import trace, traceables
from speech_export.verification.reference import Oracle
from speech_runtime.bundle.model_facts import EncoderFacts

GRAPHS = [
    ("wav2vec2, adapter", "cpu"),
    ("wav2vec2, group norm", "cpu"),
    pytest.param("hubert, batch norm positions", "cpu", marks=pytest.mark.full),
    ("data2vec-audio", "cpu"),
    ("wavlm", "cpu"),
    ("sew", "cpu"),
    pytest.param("wav2vec2-conformer, relative", "cpu", marks=pytest.mark.full),
    ("wav2vec2-bert, relative_key", "cpu"),
    ("speech_to_text", "cpu"),
    ("wav2vec2, adapter", "tensorrt"),
    pytest.param("sew", "tensorrt", marks=pytest.mark.full),
]
Run = Callable[[Array, Array], list[Array]]


@cache
def encoder(family: str, target: Target) -> tuple[SpeechEncoderDecoderModel, EncoderFacts, Run]:
    """A tiny composite, the facts of its encoder, and its traced encoder graph."""
    model = composite("bert", family)
    facts, decoder = encoder_facts(model.encoder), decoder_facts(model, top_k=4)
    with rewritten_for_tracing(model), rewritten_for_cpu(model.encoder) if target == "cpu" else nullcontext():
        traced = trace(next(iter(traceables(model, facts, decoder))), facts.input_name, decoder.layers)
    drop_needless_masks(traced)
    session = onnxruntime.InferenceSession(ir.to_proto(traced).SerializeToString())

    def run(inputs: Array, mask: Array) -> list[Array]:
        return session.run(None, {facts.input_name: inputs, "attention_mask": mask})

    return model, facts, run


@pytest.mark.parametrize(("family", "target"), GRAPHS)
@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_length_gives_the_frames_of_torch(family: str, target: Target, data: st.DataObject) -> None:
    model, facts, run = encoder(family, target)
    longest = min(facts.min_length + 40 * facts.stride, facts.max_length or sys.maxsize)
    lengths = np.array(data.draw(st.lists(st.integers(facts.min_length, longest), min_size=1, max_size=4)))
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    width = () if facts.feature_size is None else (facts.feature_size,)
    inputs = np.random.default_rng(int(lengths.sum())).standard_normal((*mask.shape, *width)).astype(np.float32)
    inputs[mask == 0] = 0
    hidden_states, frames = run(inputs, mask)
    expected, expected_frames = Oracle(model, inputs, mask).encode()
    np.testing.assert_array_equal(frames, expected_frames.numpy())
    torch.testing.assert_close(torch.from_numpy(hidden_states), expected, atol=1e-4, rtol=0)
