"""Test that the transcription of a clip is the same in any batch, even where padding changes the encoder's output."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import Wav2Vec2FeatureExtractor

from composites import composite
from conftest import ONE_THREAD
from speech_export import export
from speech_export.sources.composite import Composite
from speech_runtime import OnnxSpeechSeq2Seq

pytestmark = pytest.mark.usefixtures("short_verification")

LENGTHS = (1603, 977, 2411, 1290)


def test_clips_are_transcribed_together_as_alone(tmp_path: Path) -> None:
    model, extractor = composite("mbart", "wav2vec2, adapter"), Wav2Vec2FeatureExtractor(return_attention_mask=True)
    random = np.random.default_rng(0)
    clips = [random.standard_normal(length).astype(np.float32) for length in LENGTHS]
    export(Composite(model, extractor, None, "a test"), tmp_path / "bundle")
    exported = OnnxSpeechSeq2Seq.from_pretrained(tmp_path / "bundle", options=ONE_THREAD)
    exported.tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    assert not exported.manifest.encoder.padding_neutral
    together = [
        clip.tokens for clip in exported.transcribe_iter(clips, batch_size=len(clips), num_beams=3, max_new_tokens=20)
    ]
    for clip, tokens in zip(clips, together, strict=True):
        (alone,) = exported.transcribe_iter([clip], num_beams=3, max_new_tokens=20)
        assert alone.tokens == tokens
        inputs = extractor(clip, sampling_rate=16000, return_tensors="pt")
        with torch.no_grad():
            (expected,) = model.generate(**inputs, num_beams=3, max_new_tokens=20).tolist()
        assert expected == tokens
