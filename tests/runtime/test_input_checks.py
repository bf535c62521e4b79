"""Test that model input which cannot be encoded is refused before it reaches the graph."""

import numpy as np
import pytest

import speech_runtime.input_checks
from speech_runtime import AudioError
from speech_runtime.bundle.model_facts import EncoderFacts
from speech_runtime.input_checks import check_inputs, check_memory

ENCODER = EncoderFacts("input_values", None, heads=4, min_length=30, max_length=None, stride=20)
FEATURES = EncoderFacts("input_features", 80, heads=4, min_length=1, max_length=2000, stride=4)
ONES = np.ones((2, 1000), np.float32)


def test_input_that_is_no_array_is_refused() -> None:
    class Attached:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise RuntimeError("call detach() first")

    with pytest.raises(AudioError, match=r"the input: input_values: is not an array of samples: call detach\(\) first"):
        check_inputs(Attached(), None, ENCODER)
    with pytest.raises(AudioError, match="attention_mask: is not an array"):
        check_inputs(ONES, Attached(), ENCODER)
    with pytest.raises(AudioError, match="input_values: has 2,000 masked values"):
        check_inputs(np.ma.masked_array(ONES, ONES > 0), None, ENCODER)


def test_good_input_passes_as_float32() -> None:
    values, mask = check_inputs(ONES.astype(np.float64), None, ENCODER)
    assert values.dtype == np.float32
    assert mask.dtype == np.int64
    assert mask.all()


@pytest.mark.parametrize(
    ("inputs", "mask", "message"),
    [
        (ONES[0], None, r"must be floating-point \[batch, samples\], got float32 \[1000\]"),
        (ONES.astype(np.int16), None, "got int16"),
        (ONES[:, :0], None, r"is empty, its shape is \[2, 0\]"),
        (ONES * np.nan, None, "2,000 values that are NaN"),
        ([[0.5, 0.5], [0.5]], None, "input_values: is not an array of samples: "),
        (ONES * 2e19, None, r"values up to 2e\+19, and beyond 1.84e\+19 their squares overflow"),
        (ONES * -1e36, None, r"values up to 1e\+36"),
        (ONES.astype(np.float64) * 1e200, None, r"values up to 1e\+200"),
        (ONES[:, :29], None, "row 0 of the input: has 29 samples, the encoder needs at least 30"),
        (ONES[:1, :1], None, "the input: has 1 samples"),
        (ONES, np.ones((2, 999), np.int64), r"of the input's shape \[2, 1000\], got int64 \[2, 999\]"),
        (ONES, np.ones((2, 1000)), "got float64"),
        (ONES, np.stack([np.ones(1000, int), np.arange(1000) > 500]), "pad at the end"),
        (ONES, np.full((2, 1000), 2), "ones followed by zeros"),
        (ONES, np.stack([np.ones(1000, int), -(np.arange(1000) > 900).astype(int)]), "ones followed by zeros"),
        (ONES, np.stack([np.ones(1000, int), np.arange(1000) < 20]), "row 1 of the input: has 20 samples"),
    ],
)
def test_bad_input_is_refused(inputs: np.ndarray, mask: np.ndarray | None, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        check_inputs(inputs, mask, ENCODER)


@pytest.mark.parametrize(
    ("batch", "length", "encoder", "free", "needed"),
    [
        (1, 3600 * 16000, ENCODER, 2**30, "1.29 GiB"),
        (8, 30 * 16000, ENCODER, 80 * 2**20, "0.09 GiB"),
        (1, 1_800_000, FEATURES, 600 * 2**20, "1.10 GiB"),
    ],
)
def test_input_that_cannot_fit_is_refused_with_what_it_needs(
    batch: int, length: int, encoder: EncoderFacts, free: int, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_runtime.input_checks, "free_memory_bytes", lambda: free)
    with pytest.raises(AudioError, match=rf"need {needed} of memory or more, .* may use .* GiB; split the audio"):
        check_memory(batch, length, encoder)
    monkeypatch.setattr(speech_runtime.input_checks, "free_memory_bytes", lambda: 2 * free)
    check_memory(batch, length, encoder)


def test_twenty_minutes_are_not_refused_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled model takes 1.04 GiB for them, and a wav2vec2-base 1.93 GiB for 30 s in a batch of two."""
    monkeypatch.setattr(speech_runtime.input_checks, "free_memory_bytes", lambda: 2 * 2**30)
    check_memory(1, 1200 * 16000, EncoderFacts("input_values", None, 4, 1560, None, 640))
    check_memory(2, 30 * 16000, EncoderFacts("input_values", None, 12, 400, None, 320))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 100), r"must be floating-point \[batch, time, 80\]"),
        ((2, 100, 40), r"must be \[batch, time, 80\], got \[2, 100, 40\]"),
        ((2, 2001, 80), "row 0 of the input: has 2,001 feature frames, the encoder has positions for 2,000 at most"),
    ],
)
def test_features_that_do_not_fit_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(AudioError, match=message):
        check_inputs(np.ones(shape, np.float32), None, FEATURES)
