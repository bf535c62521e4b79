"""Tiny composite models with random weights, spread wide enough that their answers are not near-ties."""

import torch
from transformers import (
    BartConfig,
    BertConfig,
    GenerationConfig,
    GPT2Config,
    MBartConfig,
    PretrainedConfig,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    Wav2Vec2Config,
)

VOCABULARY = 90
START, PAD, EOS = 1, 3, 2
DECODERS = ("bert", "gpt2", "bart", "mbart")

_SPREAD = 0.2
_DECODER = {"vocab_size": VOCABULARY, "is_decoder": True, "add_cross_attention": True}
_TOKENS = {"bos_token_id": START, "pad_token_id": PAD, "eos_token_id": EOS}
_BART = {
    "d_model": 24,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "init_std": _SPREAD,
    "forced_eos_token_id": None,
}


def encoder_config() -> Wav2Vec2Config:
    """Layer norm, masks honoured, 20 samples a frame."""
    return Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 3, 2),
        conv_stride=(5, 2, 2),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        initializer_range=_SPREAD,
    )


def decoder_config(family: str) -> PretrainedConfig:
    """Two layers of the given family, another width than the encoder."""
    match family:
        case "bert":
            return BertConfig(
                hidden_size=24,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=40,
                max_position_embeddings=64,
                initializer_range=_SPREAD,
                **_DECODER,
                **_TOKENS,
            )
        case "gpt2":
            return GPT2Config(
                n_embd=24, n_layer=2, n_head=4, n_positions=64, initializer_range=_SPREAD, **_DECODER, **_TOKENS
            )
        case "bart":
            return BartConfig(**_BART, **_DECODER, **_TOKENS)
        case "mbart":
            return MBartConfig(**_BART, **_DECODER, **_TOKENS)
    raise ValueError(family)


def composite(family: str, seed: int = 0) -> SpeechEncoderDecoderModel:
    """Wav2Vec2 and a decoder of the given family, random weights, ready to generate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder_config(), decoder_config(family))
        model = SpeechEncoderDecoderModel(config).eval()
    model.generation_config = GenerationConfig(decoder_start_token_id=START, pad_token_id=PAD, eos_token_id=EOS)
    return model
