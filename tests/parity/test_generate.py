"""Test exported models against transformers on the same weights: the same tokens, log-probabilities within 1e-4."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from composites import CORE_DECODERS
from conftest import Pair
from speech_runtime import GenerationError

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]


def padded_batch(lengths: list[int], seed: int = 0) -> Batch:
    """Noise of the given lengths: float32 [batch, samples] with zeros at the end, and its mask."""
    random = np.random.default_rng(seed)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    return (random.standard_normal(mask.shape) * mask).astype(np.float32), mask


def reference_tokens(pair: Pair, batch: Batch, **search: Any) -> NDArray[np.int64]:
    inputs, mask = (torch.from_numpy(array) for array in batch)
    with torch.no_grad():
        tokens: NDArray[np.int64] = pair.reference.generate(inputs, attention_mask=mask, **search).numpy()
    return tokens


@pytest.mark.parametrize("family", CORE_DECODERS)
def test_tokens_are_the_same_in_a_padded_batch(pair: Callable[[str], Pair], family: str) -> None:
    model, batch = pair(family), padded_batch([1603, 977, 2411])
    for search in ({"num_beams": 1}, {"num_beams": 4, "num_return_sequences": 2}):
        expected = reference_tokens(model, batch, max_new_tokens=24, **search)
        found = model.exported.generate(*batch, max_new_tokens=24, **search)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("family", CORE_DECODERS)
def test_logprobs_are_the_same(pair: Callable[[str], Pair], family: str) -> None:
    model, (inputs, mask) = pair(family), padded_batch([1603, 977, 2411])
    tokens = np.random.default_rng(1).integers(4, 90, (3, 11))
    with torch.no_grad():
        logits = model.reference(
            torch.from_numpy(inputs), attention_mask=torch.from_numpy(mask), decoder_input_ids=torch.from_numpy(tokens)
        ).logits
    found = torch.from_numpy(model.exported.forward(inputs, mask, decoder_input_ids=tokens).logits)
    expected = torch.log_softmax(logits, dim=-1)
    torch.testing.assert_close(torch.log_softmax(found, dim=-1), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", CORE_DECODERS)
@pytest.mark.parametrize("beams", [1, 4])
def test_padding_does_not_change_the_answer(pair: Callable[[str], Pair], family: str, beams: int) -> None:
    model, lengths = pair(family).exported, [1603, 977, 2411]
    inputs, mask = padded_batch(lengths)
    together = model.generate(inputs, mask, num_beams=beams, max_new_tokens=16)
    for row, length in enumerate(lengths):
        alone = model.generate(inputs[row : row + 1, :length], num_beams=beams, max_new_tokens=16)
        np.testing.assert_array_equal(together[row, : alone.shape[1]], alone[0])


def test_settings_beyond_the_candidates_read_the_whole_vocabulary(pair: Callable[[str], Pair]) -> None:
    model, batch = pair("bert"), padded_batch([1603, 977])
    search = {"num_beams": 5, "max_new_tokens": 16, "suppress_tokens": list(range(20, 80))}
    np.testing.assert_array_equal(model.exported.generate(*batch, **search), reference_tokens(model, batch, **search))


def test_prompts_are_continued(pair: Callable[[str], Pair]) -> None:
    model, batch = pair("bart"), padded_batch([1603, 977])
    for prompt in ([[1, 30, 31], [1, 40, 41]], [[30, 31], [40, 41]]):
        ids = np.array(prompt)
        expected = reference_tokens(model, batch, num_beams=3, decoder_input_ids=torch.from_numpy(ids))
        found = model.exported.generate(*batch, num_beams=3, max_new_tokens=20, decoder_input_ids=ids)
        np.testing.assert_array_equal(found, expected)


def test_encoder_output_can_be_used_again(pair: Callable[[str], Pair]) -> None:
    model, batch = pair("gpt2").exported, padded_batch([1603, 977])
    encoded = model.encode(*batch)
    for beams in (1, 3):
        np.testing.assert_array_equal(
            model.generate(encoder_outputs=encoded, num_beams=beams), model.generate(*batch, num_beams=beams)
        )


def test_without_settings_transformers_defaults_hold_but_for_the_length(pair: Callable[[str], Pair]) -> None:
    model, batch = pair("mbart"), padded_batch([1603])
    np.testing.assert_array_equal(model.exported.generate(*batch, max_new_tokens=20), reference_tokens(model, batch))
    positions = model.exported.manifest.decoder.longest
    np.testing.assert_array_equal(model.exported.generate(*batch), reference_tokens(model, batch, max_length=positions))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "the input is missing; give input_values"),
        ({"inputs": 0, "num_return_sequences": 2}, "num_return_sequences is 2 but num_beams only 1"),
        ({"inputs": 0, "max_new_tokens": 65}, "set max_new_tokens to 64 or less"),
        ({"inputs": 0, "decoder_input_ids": [[1], [1]]}, r"decoder_input_ids must be integers \[1, tokens\]"),
        ({"inputs": 0, "decoder_input_ids": [[90]]}, "decoder_input_ids must be 0 … 89, got 90"),
        ({"inputs": 0, "temperature_": 1.0}, "temperature_ is not a known setting; did you mean temperature"),
    ],
)
def test_bad_calls_are_refused(pair: Callable[[str], Pair], keywords: dict[str, Any], message: str) -> None:
    if "inputs" in keywords:
        keywords = {**keywords, "inputs": padded_batch([1603])[0]}
    with pytest.raises(GenerationError, match=message):
        pair("bert").exported.generate(**keywords)
