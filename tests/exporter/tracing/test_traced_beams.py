"""Test that beams which share a cross-attention cache are computed as if each had its own."""

import pytest
import torch

from composites import composite
from speech_export.tracing import beams as beams_module
from speech_export.tracing.beams import cross_attentions
from speech_export.tracing.facts import decoder_facts
from speech_export.tracing.graphs import DecoderInit, DecoderWithPast
from speech_export.tracing.rewrites.rewritten import rewritten_for_tracing

BATCH, BEAMS, TOKENS, FRAMES, LAYERS = 2, 3, 2, 7, 2


def logits_of_a_step(family: str) -> torch.Tensor:
    model = composite(family)
    facts = decoder_facts(model, top_k=4)  # runs the model as it is
    with torch.random.fork_rng(), rewritten_for_tracing(model):
        torch.manual_seed(0)
        cross = DecoderInit(model, LAYERS)(torch.randn(BATCH, FRAMES, 24))
        mask = torch.ones(BATCH, FRAMES, dtype=torch.int64)
        mask[1, 4:] = 0
        past = [(torch.randn(BATCH, 1, 3, 5, 8), torch.randn(BATCH, 1, 3, 5, 8)) for _ in range(LAYERS)]
        input_ids = torch.randint(4, 90, (BATCH, BEAMS, TOKENS))
        step = DecoderWithPast(model, facts)
        logits: torch.Tensor = step(input_ids, torch.zeros(BATCH, BEAMS, dtype=torch.int64), mask, past, cross)[0]
    return logits


@pytest.mark.parametrize("family", ["bert", "gpt2", "bart", "trocr", "roformer"])
def test_a_family_of_unknown_names_gets_a_cache_for_each_beam(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folded = logits_of_a_step(family)
    assert len(cross_attentions(composite(family).decoder)) == LAYERS
    monkeypatch.setattr(beams_module, "_CROSS_ATTENTION", frozenset())
    assert cross_attentions(composite(family).decoder) == []
    torch.testing.assert_close(logits_of_a_step(family), folded, atol=1e-5, rtol=0)


def test_the_model_is_as_it_was_afterwards() -> None:
    model = composite("bert")
    before = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    implementation = model.decoder.config._attn_implementation
    with rewritten_for_tracing(model):
        assert model.decoder.config._attn_implementation != implementation
    assert model.decoder.config._attn_implementation == implementation
    assert {name: len(module._forward_hooks) for name, module in model.named_modules()} == before
