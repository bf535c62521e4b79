"""The untrained model: a small Wav2Vec2 encoder, a small BERT decoder, tokenizer and feature extractor."""

from __future__ import annotations

import math
import string

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from torch.nn import functional
from transformers import (
    BertConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)

from corpus import SAMPLE_RATE

# Padding is not token 0: transformers picks the padding of finished beams with
# `pad_token_id or eos_token_id`, which takes 0 for "not set".
_SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
_START, _PAD, _END, _UNKNOWN = range(4)
_WORD_BOUNDARY = "\u2581"
_DECODER_POSITIONS = 64

FRAME_STRIDE = 640
"""Samples from one encoder frame to the next: 25 frames a second."""
RECEPTIVE_FIELD = 1560
"""Samples which one frame of the convolutions sees."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Characters, as a BPE without merges; an end token closes each text."""
    characters = (*_SPECIAL_TOKENS, _WORD_BOUNDARY, *string.ascii_lowercase, "'")
    vocabulary = {character: number for number, character in enumerate(characters)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token=_SPECIAL_TOKENS[_UNKNOWN]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_WORD_BOUNDARY, prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(replacement=_WORD_BOUNDARY, prepend_scheme="never")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", _END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_SPECIAL_TOKENS[_START],
        pad_token=_SPECIAL_TOKENS[_PAD],
        eos_token=_SPECIAL_TOKENS[_END],
        unk_token=_SPECIAL_TOKENS[_UNKNOWN],
        model_max_length=_DECODER_POSITIONS,
    )


def build_feature_extractor() -> Wav2Vec2FeatureExtractor:
    """Raw 16 kHz samples, each utterance at zero mean and unit variance, with an attention mask."""
    return Wav2Vec2FeatureExtractor(
        feature_size=1,
        sampling_rate=SAMPLE_RATE,
        padding_value=0.0,
        do_normalize=True,
        return_attention_mask=True,
    )


def _encoder_config() -> Wav2Vec2Config:
    return Wav2Vec2Config(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        do_stable_layer_norm=True,
        feat_extract_norm="layer",
        conv_bias=True,
        conv_dim=(96, 96, 128, 128),
        conv_kernel=(160, 8, 4, 3),
        conv_stride=(40, 4, 2, 2),
        # The encoder has no other position signal; with a kernel of 16 the decoder loses its place and loops.
        num_conv_pos_embeddings=128,
        num_conv_pos_embedding_groups=16,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
        apply_spec_augment=False,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
    )


def _decoder_config() -> BertConfig:
    return BertConfig(
        vocab_size=32,
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        max_position_embeddings=_DECODER_POSITIONS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        is_decoder=True,
        add_cross_attention=True,
        tie_word_embeddings=False,
        bos_token_id=_START,
        pad_token_id=_PAD,
        eos_token_id=_END,
    )


def gabor_filters(count: int, width: int) -> torch.Tensor:
    """Windowed cosines and sines at mel-spaced frequencies: float32 (count, 1, width), unit energy each.

    A first convolution that starts as a filter bank spares the model from finding one in the waveform.
    """
    lowest, highest = (2595 * math.log10(1 + hertz / 700) for hertz in (60.0, 7600.0))
    mels = torch.linspace(lowest, highest, count // 2, dtype=torch.float64)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    time = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) / SAMPLE_RATE
    phase = 2 * math.pi * hertz[:, None] * time
    window = torch.hann_window(width, periodic=False, dtype=torch.float64)
    filters = torch.cat([torch.cos(phase), torch.sin(phase)]) * window
    return functional.normalize(filters, dim=1).float().unsqueeze(1)


def build_model(seed: int) -> SpeechEncoderDecoderModel:
    """The untrained model, with its generation settings; the same weights for the same seed."""
    torch.manual_seed(seed)
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(_encoder_config(), _decoder_config())
    config.decoder_start_token_id = _START
    config.pad_token_id = _PAD
    config.eos_token_id = _END
    model = SpeechEncoderDecoderModel(config=config)
    first = model.get_parameter("encoder.feature_extractor.conv_layers.0.conv.weight")
    with torch.no_grad():
        first.copy_(gabor_filters(first.shape[0], first.shape[2]))
    model.generation_config = GenerationConfig(
        decoder_start_token_id=_START,
        bos_token_id=_START,
        pad_token_id=_PAD,
        eos_token_id=_END,
        max_length=_DECODER_POSITIONS,
    )
    return model
