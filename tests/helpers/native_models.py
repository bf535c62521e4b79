"""Tiny speech models with decoders of their own and random weights, saved with all that an export reads."""

import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CanaryConfig,
    CanaryForConditionalGeneration,
    CohereAsrConfig,
    CohereAsrForConditionalGeneration,
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    MoonshineStreamingConfig,
    MoonshineStreamingForConditionalGeneration,
    ParakeetEncoderConfig,
    PreTrainedModel,
    SeamlessM4TConfig,
    SeamlessM4TForSpeechToText,
    SeamlessM4Tv2Config,
    SeamlessM4Tv2ForSpeechToText,
    Speech2TextConfig,
    Speech2TextForConditionalGeneration,
    SpeechT5Config,
    SpeechT5ForSpeechToText,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from composites import VOCABULARY, randomise

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


def whisper(
    settings: Mapping[str, Any] = MULTILINGUAL, words: int = NO_TIMESTAMPS + 1
) -> WhisperForConditionalGeneration:
    """A tiny Whisper with a window of 1 s, fewer decoder than encoder layers, and these generation settings."""
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=words,
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


def save_whisper(
    directory: Path, settings: Mapping[str, Any] = MULTILINGUAL, words: int = NO_TIMESTAMPS + 1
) -> WhisperForConditionalGeneration:
    """Save a whole checkpoint of a tiny Whisper, and return its model."""
    model = whisper(settings, words)
    model.save_pretrained(directory)
    whisper_tokenizer().save_pretrained(directory)
    WhisperFeatureExtractor(feature_size=20, chunk_length=1, n_fft=400, hop_length=160).save_pretrained(directory)
    return model


_BART: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "decoder_start_token_id": 2,
}
_DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
_SEAMLESS = _BART | {
    "hidden_size": 32,
    "speech_encoder_layers": 2,
    "speech_encoder_attention_heads": 4,
    "speech_encoder_intermediate_size": 48,
    "feature_projection_input_dim": 40,
    "conv_depthwise_kernel_size": 5,
    "max_position_embeddings": 64,
    "max_source_positions": 64,
    "initializer_range": 0.2,
    "num_adapter_layers": 1,
}
_SPEECHT5 = _BART | {
    "hidden_size": 32,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "max_text_positions": 64,
    "initializer_range": 0.2,
}


def _parakeet() -> ParakeetEncoderConfig:
    return ParakeetEncoderConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_kernel_size=5,
        subsampling_conv_channels=16,
        num_mel_bins=24,
        scale_input=False,
        initializer_range=0.2,
    )


NATIVE: dict[str, Callable[[], PreTrainedModel]] = {
    "speech_to_text": lambda: Speech2TextForConditionalGeneration(
        Speech2TextConfig(
            **_BART,
            d_model=32,
            conv_channels=16,
            init_std=0.2,
            max_source_positions=600,
            max_target_positions=64,
            input_feat_per_channel=24,
        )
    ),
    "speecht5": lambda: SpeechT5ForSpeechToText(SpeechT5Config(**_SPEECHT5)),
    "moonshine": lambda: MoonshineForConditionalGeneration(
        MoonshineConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            encoder_num_hidden_layers=2,
            decoder_num_hidden_layers=1,
            encoder_num_attention_heads=4,
            decoder_num_attention_heads=4,
            max_position_embeddings=64,
            initializer_range=0.2,
            decoder_start_token_id=1,
            pad_token_id=3,
        )
    ),
    "moonshine_streaming": lambda: MoonshineStreamingForConditionalGeneration(
        MoonshineStreamingConfig(
            **_DECODER | {"max_position_embeddings": 256},
            hidden_size=32,
            num_hidden_layers=1,
            decoder_start_token_id=1,
            encoder_config={
                "hidden_size": 24,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "sliding_windows": ((8, 3), (8, 0)),
                "initializer_range": 0.2,
            },
        )
    ),
    "canary": lambda: CanaryForConditionalGeneration(
        CanaryConfig(
            encoder_config=_parakeet(),
            decoder_config=_DECODER | {"hidden_size": 32, "head_dim": 8, "num_hidden_layers": 1},
            vocab_size=VOCABULARY,
            initializer_range=0.2,
        )
    ),
    "cohere_asr": lambda: CohereAsrForConditionalGeneration(
        CohereAsrConfig(
            **_DECODER, encoder_config=_parakeet(), hidden_size=24, num_hidden_layers=1, decoder_start_token_id=4
        )
    ),
    "seamless_m4t": lambda: SeamlessM4TForSpeechToText(SeamlessM4TConfig(**_SEAMLESS)),
    "seamless_m4t_v2": lambda: SeamlessM4Tv2ForSpeechToText(SeamlessM4Tv2Config(**_SEAMLESS)),
}
"""Other models, by model type."""

INPUT_SHAPES: dict[str, tuple[int, ...]] = {
    "speech_to_text": (200, 24),
    "speecht5": (4000,),
    "moonshine": (16000,),
    "moonshine_streaming": (8080,),
    "canary": (200, 24),
    "cohere_asr": (200, 24),
    "seamless_m4t": (100, 40),
    "seamless_m4t_v2": (100, 40),
}


def native(family: str) -> PreTrainedModel:
    """A tiny model with random weights."""
    torch.manual_seed(0)
    if family == "whisper":
        return whisper()
    model = NATIVE[family]().eval()
    randomise(model)
    return model
