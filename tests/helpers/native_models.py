"""Tiny speech models with decoders of their own and random weights, saved with all that an export reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from composites import randomise

WORDS = 60
END, START, ENGLISH, GERMAN, FRENCH, TRANSLATE, TRANSCRIBE, NO_TIMESTAMPS = range(WORDS, WORDS + 8)
_SPECIAL = {
    "<|endoftext|>": END,
    "<|startoftranscript|>": START,
    "<|en|>": ENGLISH,
    "<|de|>": GERMAN,
    "<|fr|>": FRENCH,
    "<|translate|>": TRANSLATE,
    "<|transcribe|>": TRANSCRIBE,
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


def whisper_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of as many words as the model has, with Whisper's special tokens."""
    tokenizer = Tokenizer(models.WordLevel({f"▁w{i}": i for i in range(WORDS)} | _SPECIAL, unk_token="▁w0"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=list(_SPECIAL)[1:],
    )


def save_whisper(directory: Path, settings: Mapping[str, Any] = MULTILINGUAL) -> WhisperForConditionalGeneration:
    """Save a whole checkpoint of a tiny Whisper, and return its model."""
    model = whisper(settings)
    model.save_pretrained(directory)
    whisper_tokenizer().save_pretrained(directory)
    WhisperFeatureExtractor(feature_size=20, chunk_length=1, n_fft=400, hop_length=160).save_pretrained(directory)
    return model
