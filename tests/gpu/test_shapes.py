"""Test every family, and the shapes that users have, on CUDA: what the CPU computes from the same graphs."""

import numpy as np
import pytest

from gpu_cases import FAMILIES, LAYERS, SHAPES, Case
from gpu_fixtures import CPU, BundleOf
from matrix import clip_lengths, padded_batch
from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.bundle.model_facts import EncoderFacts
from speech_runtime.generation.token_scores.maths import log_softmax
from token_agreement import token_agreement

pytestmark = pytest.mark.gpu

NEW_TOKENS = 12
SECONDS = (10.0, 3.3)
"""Lengths of the clips for models at their real width."""

FLOAT32_DIFFERENCE = 1e-3
"""Largest difference of a log-probability in float32; 5e-6 for most families on an H200, more where norms are small."""
HALF_DIFFERENCE = 1e-2
"""Mean difference of log-probabilities in half precision, whose sums have another order on a CPU."""
AGREEMENT = 0.95


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in [*FAMILIES, *LAYERS, *SHAPES]])
def test_what_is_computed_is_what_the_cpu_computes(case: Case, cuda: str, bundle_of: BundleOf) -> None:
    directory = bundle_of(case)
    model = OnnxSpeechSeq2Seq.from_pretrained(directory, device=cuda)
    on_cpu = OnnxSpeechSeq2Seq.from_pretrained(directory, options=CPU)
    facts = model.manifest.encoder
    inputs, mask = padded_batch(facts, clip_lengths(facts) if case.quick else _usual_lengths(facts))
    for num_beams in (1, 4):
        search = {"num_beams": num_beams, "max_new_tokens": NEW_TOKENS}
        expected, found = on_cpu.generate(inputs, mask, **search), model.generate(inputs, mask, **search)
        logprobs, of_cpu = (
            log_softmax(each.forward(inputs, mask, decoder_input_ids=expected).logits) for each in (model, on_cpu)
        )
        difference = np.abs(logprobs - of_cpu)
        assert np.isfinite(logprobs).all()
        if case.is_half:
            assert difference.mean() <= HALF_DIFFERENCE
            assert (logprobs.argmax(-1) == of_cpu.argmax(-1)).mean() >= AGREEMENT
        else:
            assert difference.max() <= FLOAT32_DIFFERENCE
            assert token_agreement(expected, found) == 1


def _usual_lengths(facts: EncoderFacts) -> list[int]:
    """Return the lengths of clips as users have them, in samples or frames of features."""
    rate = 16_000 if facts.feature_size is None else 100
    lengths = [int(seconds * rate) for seconds in SECONDS]
    return [min(max(length, facts.min_length), facts.max_length or length) for length in lengths]
