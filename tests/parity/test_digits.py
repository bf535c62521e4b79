"""Test the bundled model against transformers on real recordings and on its own clips."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import corpus
from conftest import CHECKPOINT, Pair
from parity.agreement import Batch, Settings, reference, verdicts
from scoring import word_error_rate
from tally import Tally, TallyUp

BATCH = 25
SETTINGS: dict[str, Settings] = {
    "greedy": {},
    "greedy, repetition penalty": {"repetition_penalty": 1.3},
    "4 beams": {"num_beams": 4},
    "5 beams, length penalty": {
        "num_beams": 5,
        "num_return_sequences": 3,
        "length_penalty": 2.0,
        "early_stopping": "never",
    },
    "3 beams, no repeated 4-grams": {"num_beams": 3, "no_repeat_ngram_size": 4, "early_stopping": True},
    "2 beams, bans and biases": {
        "num_beams": 2,
        "bad_words_ids": [[18, 13, 18, 9]],
        "sequence_bias": [[[4], -0.5], [[19, 18], 1.5]],
        "min_new_tokens": 12,
        "exponential_decay_length_penalty": (24, 1.05),
        "renormalize_logits": True,
    },
}


@pytest.mark.parametrize("strings", [24, pytest.param(500, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_are_the_same_on_real_speech(
    digits: Pair, fsdd: Path, name: str, strings: int, tally_up: TallyUp
) -> None:
    clips, tally = [samples for samples, _ in corpus.test_strings(fsdd, strings, seed=11)], Tally()
    extractor, settings = digits.exported.feature_extractor, SETTINGS[name]
    assert extractor is not None
    for first in range(0, strings, BATCH):
        batch = Batch(*extractor(clips[first : first + BATCH]))
        found = digits.exported.generate(batch.inputs, batch.mask, return_dict_in_generate=True, **settings)
        tally.add(*verdicts(digits, batch, settings, reference(digits, batch, settings), found))
    assert tally.cases == strings
    tally_up(tally)


def test_hypotheses_and_scores_are_the_same_in_noise(digits: Pair, fsdd: Path) -> None:
    random = np.random.default_rng(0)
    clips = [samples for samples, _ in corpus.test_strings(fsdd, 16, seed=12)]
    noisy = [(clip + random.standard_normal(clip.size) * clip.std() * 1.8).astype(np.float32) for clip in clips]
    extractor = digits.exported.feature_extractor
    assert extractor is not None
    inputs, mask = extractor(noisy)
    with torch.no_grad():
        expected = digits.reference.generate(
            torch.from_numpy(inputs),
            attention_mask=torch.from_numpy(mask),
            num_beams=4,
            num_return_sequences=4,
            output_scores=True,
            return_dict_in_generate=True,
        )
    found = digits.exported.generate(inputs, mask, num_beams=4, num_return_sequences=4)
    np.testing.assert_array_equal(found, expected.sequences.numpy())
    greedy = digits.exported.generate(inputs, mask)
    best = found[::4]
    assert any(not np.array_equal(a[a != 1], b[b != 1]) for a, b in zip(greedy, best, strict=True))
    scores = [clip.score for clip in digits.exported.transcribe_iter(noisy, batch_size=len(noisy), num_beams=4)]
    np.testing.assert_allclose(scores, expected.sequences_scores.numpy()[::4], atol=1e-4)


def test_word_error_rate_on_real_speech(digits: Pair, fsdd: Path) -> None:
    strings = corpus.test_strings(fsdd, 120, seed=13)
    for beams in (1, 4):
        heard = [digits.exported.transcribe(samples, num_beams=beams) for samples, _ in strings]
        assert word_error_rate([text for _, text in strings], heard) <= 0.03


def test_the_clips_are_heard_right(digits: Pair, references: dict[Path, str]) -> None:
    assert len(references) >= 8
    heard = digits.exported.transcribe(list(references))
    assert dict(zip(references, heard, strict=True)) == references


def test_text_is_decoded_as_transformers_decodes_it(digits: Pair) -> None:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert digits.exported.tokenizer is not None
    random = np.random.default_rng(0)
    for _ in range(50):
        tokens = random.integers(0, len(tokenizer), 12).tolist()
        decoded = digits.exported.tokenizer.decode(tokens, skip_special_tokens=True)
        assert decoded == tokenizer.decode(tokens, skip_special_tokens=True)


def test_no_weight_is_stored_twice(digits: Pair) -> None:
    weights = sum(parameter.numel() * 4 for parameter in digits.reference.parameters())
    size = sum(path.stat().st_size for path in digits.directory.iterdir())
    assert size <= 1.02 * weights + 2 * 2**20
