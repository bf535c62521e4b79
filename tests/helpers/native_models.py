"""Tiny speech models with decoders of their own and random weights, saved with all that an export reads."""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from composites import randomise

LETTERS = string.ascii_letters + "01234567"
WORDS = len(LETTERS)
END, START, ENGLISH, GERMAN, FRENCH, TRANSLATE, TRANSCRIBE, PREVIOUS, NO_TIMESTAMPS = range(WORDS, WORDS + 9)
_SPECIAL = {
    "<|endoftext|>": END,
    "<|startoftranscript|>": START,
    "<|en|>": ENGLISH,
    "<|de|>": GERMAN,
    "<|fr|>": FRENCH,
    "<|translate|>": TRANSLATE,
    "<|transcribe|>": TRANSCRIBE,
    "<|startofprev|>": PREVIOUS,
    "<|notimestamps|>": NO_TIMESTAMPS,
}
MULTILINGUAL = {
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": ENGLISH, "<|de|>": GERMAN, "<|fr|>": FRENCH},
    "task_to_id": {"translate": TRANSLATE, "transcribe": TRANSCRIBE},
    "no_timestamps_token_id": NO_TIMESTAMPS,
}
"""Generation settings of a multilingual Whisper."""


def whisper(settings: Mapping[str, Any] = MULTILINGUAL) -> WhisperForConditionalGeneration:
    """A tiny Whisper with a window of 1 s, fewer decoder than encoder layers, and these generation settings."""
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=NO_TIMESTAMPS + 1,
        num_mel_bins=20,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_source_positions=50,
        max_target_positions=64,
        init_std=0.4,
        decoder_start_token_id=START,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
    )
    model = WhisperForConditionalGeneration(config).eval()
    randomise(model)
    tokens = {"decoder_start_token_id": START, "bos_token_id": END, "eos_token_id": END, "pad_token_id": END}
    model.generation_config = GenerationConfig(**tokens, max_length=64, **settings)
    return model


def whisper_tokenizer() -> WhisperTokenizer:
    """A tokenizer of as many letters as the model has words, with Whisper's special tokens."""
    vocabulary = {letter: i for i, letter in enumerate(LETTERS)} | _SPECIAL
    special = {"pad_token": "<|endoftext|>", "extra_special_tokens": list(_SPECIAL)[1:]}
    return WhisperTokenizer(vocab=vocabulary, merges=[], **special)


def save_whisper(directory: Path, settings: Mapping[str, Any] = MULTILINGUAL) -> WhisperForConditionalGeneration:
    """Save a whole checkpoint of a tiny Whisper, and return its model."""
    model = whisper(settings)
    model.save_pretrained(directory)
    whisper_tokenizer().save_pretrained(directory)
    WhisperFeatureExtractor(feature_size=20, chunk_length=1, n_fft=400, hop_length=160).save_pretrained(directory)
    return model
