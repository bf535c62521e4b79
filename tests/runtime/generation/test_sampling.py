"""Test that tokens are sampled as often as their probabilities demand."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig as ReferenceConfig

from speech_runtime.bundle.model_facts import DecoderFacts
from speech_runtime.generation.call_options import CallOptions
from speech_runtime.generation.config import GenerationConfig
from table_model import TableDecoder, TableModel, logits_of, random_table, search

VOCABULARY, DRAWS = 24, 24_000


@pytest.mark.parametrize("candidates", [8, 64])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.4, "top_k": 6},
        {"top_k": 7, "top_p": 0.8, "suppress_tokens": [3]},
        {"top_k": 0, "typical_p": 0.7, "repetition_penalty": 1.5},
        {"top_k": 0, "min_p": 0.1, "renormalize_logits": True},
    ],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(settings: dict[str, Any], candidates: int) -> None:
    table, prompt = random_table(3, VOCABULARY, 1.5), np.array([[4, 9]])
    model = TableModel(table)
    reference = ReferenceConfig(do_sample=True, max_new_tokens=1, eos_token_id=2, pad_token_id=1, **settings)
    reference._eos_token_tensor = torch.tensor([2])
    processors = model._get_logits_processor(reference, input_ids_seq_length=2)
    scores = processors(torch.from_numpy(prompt), torch.from_numpy(logits_of(table, prompt)))
    expected = torch.softmax(scores, dim=-1)[0].numpy() * DRAWS

    facts = DecoderFacts(1, 1, 1, VOCABULARY, None, None, top_k=min(candidates, VOCABULARY))
    config = GenerationConfig(eos_token_id=2, pad_token_id=1).updated(
        {"do_sample": True, "max_new_tokens": 1, "num_return_sequences": DRAWS, **settings}
    )
    options = CallOptions(generator=np.random.default_rng(0))
    found = search(TableDecoder(table, facts.top_k), facts, prompt, config, options)
    counts = np.bincount(found.sequences[:, 2], minlength=VOCABULARY)

    possible = expected > 0
    assert not counts[~possible].any()
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)  # four standard deviations
