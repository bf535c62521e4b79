"""Test encoder graphs with the kernels and strides of real checkpoints, from one frame to three seconds of audio."""

from functools import cache

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, SpeechEncoderDecoderModel, Wav2Vec2Config, Wav2Vec2Model

from composites import DECODERS
from speech_export.tracing.facts import decoder_facts, encoder_facts
from speech_export.tracing.rewrites.rewritten import rewritten_for_cpu, rewritten_for_tracing
from speech_export.tracing.tracer import trace, traceables
from speech_export.verification.reference import Oracle

NARROW = {
    "conv_dim": (8,) * 7,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "initializer_range": 0.2,
}
NORMS = {
    "layer": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True, "add_adapter": True},
    "group": {"feat_extract_norm": "group"},
}


@cache
def encoder(norm: str, quantized: bool) -> tuple[SpeechEncoderDecoderModel, onnxruntime.InferenceSession]:
    """XLS-R and its adapter, or Wav2Vec2-Base, but narrow; and the encoder graph."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        speech = Wav2Vec2Model(Wav2Vec2Config(**NARROW, **NORMS[norm]))
        text = AutoModelForCausalLM.from_config(DECODERS["bert"]())
        model = SpeechEncoderDecoderModel(encoder=speech, decoder=text).eval()
    facts, decoder = encoder_facts(model.encoder), decoder_facts(model, top_k=4)
    with rewritten_for_tracing(model), rewritten_for_cpu(model.encoder, quantized):
        traced = trace(next(iter(traceables(model, facts, decoder))), facts.input_name, decoder.layers)
    return model, onnxruntime.InferenceSession(ir.to_proto(traced).SerializeToString())


@pytest.mark.parametrize(
    ("norm", "quantized"), [("layer", False), pytest.param("group", False, marks=pytest.mark.full), ("group", True)]
)
@settings(max_examples=12, deadline=None)
@example(samples=400)
@example(samples=719)
@example(samples=720)
@example(samples=20879)
@example(samples=20880)
@example(samples=50000)
@given(samples=st.integers(400, 50000))
def test_every_number_of_samples_gives_the_frames_of_torch(norm: str, quantized: bool, samples: int) -> None:
    model, session = encoder(norm, quantized)
    waveform = np.random.default_rng(samples).standard_normal((1, samples)).astype(np.float32)
    mask = np.ones((1, samples), dtype=np.int64)
    hidden_states, frames = session.run(None, {"input_values": waveform, "attention_mask": mask})
    expected, expected_frames = Oracle(model, waveform, mask).encode()
    np.testing.assert_array_equal(frames, expected_frames.numpy())
    torch.testing.assert_close(torch.from_numpy(hidden_states), expected, atol=2e-5, rtol=1e-5)
