"""Feature extraction against transformers' `Wav2Vec2FeatureExtractor`."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Wav2Vec2FeatureExtractor

from speech_runtime import BundleError
from speech_runtime.features import FeatureExtractor


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    level=st.sampled_from([1e-5, 0.1, 1.0]),
    offset=st.sampled_from([0.0, 0.3]),
    do_normalize=st.booleans(),
    return_attention_mask=st.booleans(),
    padding_value=st.sampled_from([0.0, -1.0]),
)
def test_equal_to_transformers(
    lengths: list[int],
    level: float,
    offset: float,
    do_normalize: bool,
    return_attention_mask: bool,
    padding_value: float,
) -> None:
    random = np.random.default_rng(len(lengths))
    clips = [(random.standard_normal(length) * level + offset).astype(np.float32) for length in lengths]
    reference = Wav2Vec2FeatureExtractor(
        do_normalize=do_normalize, return_attention_mask=return_attention_mask, padding_value=padding_value
    )(clips, sampling_rate=16000, padding=True, return_tensors="np")
    values, mask = FeatureExtractor(16000, do_normalize, return_attention_mask, padding_value)(clips)
    np.testing.assert_allclose(values, reference.input_values, atol=1e-6)
    assert values.dtype == np.float32
    if return_attention_mask:
        np.testing.assert_array_equal(mask, reference.attention_mask)
    else:
        assert mask.all()


def test_read_from_what_transformers_writes(tmp_path: Path) -> None:
    Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=False, return_attention_mask=True).save_pretrained(
        tmp_path
    )
    assert FeatureExtractor.from_file(tmp_path / "preprocessor_config.json") == FeatureExtractor(8000, False, True, 0.0)


def test_another_extractor_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text('{"feature_extractor_type": "WhisperFeatureExtractor"}')
    with pytest.raises(BundleError, match="WhisperFeatureExtractor"):
        FeatureExtractor.from_file(path)
