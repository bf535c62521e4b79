"""Transcribe with a checkpoint in PyTorch, and compute the word error rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import jiwer
import torch
from transformers import PreTrainedTokenizerFast, SpeechEncoderDecoderModel, Wav2Vec2FeatureExtractor

from corpus import SAMPLE_RATE, Samples

_BATCH_SIZE = 12


def word_error_rate(references: Sequence[str], transcripts: Sequence[str]) -> float:
    """Wrong, missing and extra words over the words that were said: 0.01 is one in a hundred."""
    return float(jiwer.wer(list(references), list(transcripts)))


def transcribe(
    model: SpeechEncoderDecoderModel,
    feature_extractor: Wav2Vec2FeatureExtractor,
    tokenizer: PreTrainedTokenizerFast,
    audio: Sequence[Samples],
    num_beams: int = 1,
) -> list[str]:
    """The text of each float32 16 kHz utterance, in their order; batches are alike in length."""
    order = sorted(range(len(audio)), key=lambda number: len(audio[number]))
    texts = [""] * len(audio)
    for first in range(0, len(order), _BATCH_SIZE):
        chosen = order[first : first + _BATCH_SIZE]
        inputs = feature_extractor(
            [audio[number] for number in chosen], sampling_rate=SAMPLE_RATE, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            tokens = model.generate(inputs.input_values, attention_mask=inputs.attention_mask, num_beams=num_beams)
        decoded = tokenizer.batch_decode(cast("torch.Tensor", tokens), skip_special_tokens=True)
        for number, text in zip(chosen, decoded, strict=True):
            texts[number] = text.strip()
    return texts
