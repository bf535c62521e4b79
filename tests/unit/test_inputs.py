"""Model input that cannot be encoded is refused before it reaches the graph."""

import numpy as np
import pytest

from speech_runtime import AudioError
from speech_runtime.bundle import EncoderFacts
from speech_runtime.inputs import check_inputs, check_memory

ENCODER = EncoderFacts("input_values", heads=4, conv_kernel=(10, 3, 2), conv_stride=(5, 2, 2))
ONES = np.ones((2, 1000), np.float32)


def test_receptive_field_and_frames() -> None:
    assert ENCODER.receptive_field == 10 + 2 * 5 + 1 * 10
    assert ENCODER.samples_per_frame == 20


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
        (ONES[:, :29], None, "row 0 of the input: has 29 samples, the encoder needs at least 30"),
        (ONES[:1, :1], None, "the input: has 1 samples"),
        (ONES, np.ones((2, 999), np.int64), r"of the input's shape \[2, 1000\], got int64 \[2, 999\]"),
        (ONES, np.ones((2, 1000)), "got float64"),
        (ONES, np.stack([np.ones(1000, int), np.arange(1000) > 500]), "pad at the end"),
        (ONES, np.full((2, 1000), 2), "ones followed by zeros"),
        (ONES, np.stack([np.ones(1000, int), np.arange(1000) < 20]), "row 1 of the input: has 20 samples"),
    ],
)
def test_bad_input_is_refused(inputs: np.ndarray, mask: np.ndarray | None, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        check_inputs(inputs, mask, ENCODER)


def test_an_hour_is_refused_with_what_it_would_need() -> None:
    with pytest.raises(AudioError, match=r"would need about [\d,]+ GiB.*split the audio"):
        check_memory(1, 3600 * 16000, ENCODER)
    check_memory(8, 30 * 16000, EncoderFacts("input_values", 16, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)))
