"""Encoders and decoders at the widths that users have, with few layers and random weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import (
    ASTConfig,
    AutoModel,
    AutoModelForCausalLM,
    BartConfig,
    BertConfig,
    Data2VecAudioConfig,
    GenerationConfig,
    HubertConfig,
    MBartConfig,
    PretrainedConfig,
    SEWConfig,
    SEWDConfig,
    Speech2TextConfig,
    SpeechEncoderDecoderModel,
    TrOCRConfig,
    UniSpeechConfig,
    UniSpeechSatConfig,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    WavLMConfig,
)
from transformers.models.speech_to_text.modeling_speech_to_text import Speech2TextEncoder

from composites import EOS, PAD, START, decoder_model

_LARGE: dict[str, Any] = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
_STABLE = _LARGE | {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_DECODER: dict[str, Any] = {"is_decoder": True, "add_cross_attention": True}
_LAYERS = 2

ENCODERS: dict[str, Callable[[int], PretrainedConfig]] = {
    "wav2vec2-base": lambda layers: Wav2Vec2Config(num_hidden_layers=layers),
    "xls-r": lambda layers: Wav2Vec2Config(**_STABLE, num_hidden_layers=layers),
    "xls-r, adapter": lambda layers: Wav2Vec2Config(**_STABLE, num_hidden_layers=layers, add_adapter=True),
    "mms": lambda layers: Wav2Vec2Config(**_STABLE, num_hidden_layers=layers, adapter_attn_dim=16),
    "hubert-base": lambda layers: HubertConfig(num_hidden_layers=layers),
    "hubert-large": lambda layers: HubertConfig(**_STABLE, num_hidden_layers=layers),
    "wavlm-base": lambda layers: WavLMConfig(num_hidden_layers=layers),
    "wavlm-large": lambda layers: WavLMConfig(**_STABLE, num_hidden_layers=layers),
    "unispeech-large": lambda layers: UniSpeechConfig(**_STABLE, num_hidden_layers=layers),
    "unispeech-sat-large": lambda layers: UniSpeechSatConfig(**_STABLE, num_hidden_layers=layers),
    "data2vec-audio-large": lambda layers: Data2VecAudioConfig(**_LARGE, num_hidden_layers=layers),
    "sew-mid": lambda layers: SEWConfig(num_hidden_layers=layers),
    "sew-d-mid": lambda layers: SEWDConfig(num_hidden_layers=layers),
    "wav2vec2-conformer-large, relative": lambda layers: Wav2Vec2ConformerConfig(
        **_LARGE, num_hidden_layers=layers, feat_extract_norm="layer", position_embeddings_type="relative"
    ),
    "wav2vec2-conformer-large, rotary": lambda layers: Wav2Vec2ConformerConfig(
        **_LARGE, num_hidden_layers=layers, feat_extract_norm="layer", position_embeddings_type="rotary"
    ),
    "w2v-bert-2.0": lambda layers: Wav2Vec2BertConfig(num_hidden_layers=layers, add_adapter=True),
    "s2t-medium": lambda layers: Speech2TextConfig(
        d_model=512, encoder_layers=layers, encoder_attention_heads=8, encoder_ffn_dim=2048
    ),
    "ast": lambda layers: ASTConfig(num_hidden_layers=layers),
}
"""A configuration with so many layers; the names are those of checkpoints."""

DECODERS: dict[str, Callable[[], PretrainedConfig]] = {
    "bert-base": lambda: BertConfig(**_DECODER, num_hidden_layers=_LAYERS),
    "mbart-50": lambda: MBartConfig(
        **_DECODER, vocab_size=250_054, decoder_layers=_LAYERS, encoder_layers=_LAYERS, scale_embedding=True
    ),
    "bart-large": lambda: BartConfig(**_DECODER, decoder_layers=_LAYERS, encoder_layers=_LAYERS),
    "speech2text2": lambda: TrOCRConfig(
        vocab_size=10_224,
        d_model=256,
        decoder_layers=_LAYERS,
        decoder_attention_heads=4,
        decoder_ffn_dim=2048,
        cross_attention_hidden_size=None,
        use_learned_position_embeddings=False,
        layernorm_embedding=False,
        scale_embedding=True,
    ),
}

PAIRS = (
    ("wav2vec2-base", "bert-base"),
    ("xls-r, adapter", "mbart-50"),
    ("hubert-large", "bart-large"),
    ("xls-r", "speech2text2"),
)
"""The composites that are fine-tuned most."""


def real_shape(encoder: str, decoder: str) -> SpeechEncoderDecoderModel:
    """A composite at its real widths and vocabulary, with two layers on either side."""
    with _seeded():
        speech = AutoModel.from_config(ENCODERS[encoder](_LAYERS))
        text = AutoModelForCausalLM.from_config(DECODERS[decoder]())
    return _ready(SpeechEncoderDecoderModel(encoder=speech, decoder=text))


def one_layer(encoder: str) -> SpeechEncoderDecoderModel:
    """An encoder at its real width with one layer, and a tiny decoder."""
    with _seeded():
        config = ENCODERS[encoder](1)
        of_speech_to_text = config.model_type == "speech_to_text"
        speech = Speech2TextEncoder(config) if of_speech_to_text else AutoModel.from_config(config)
        model = SpeechEncoderDecoderModel(encoder=speech, decoder=decoder_model("bert"))
    return _ready(model)


def _ready(model: SpeechEncoderDecoderModel) -> SpeechEncoderDecoderModel:
    model.generation_config = GenerationConfig(decoder_start_token_id=START, pad_token_id=PAD, eos_token_id=EOS)
    return model.eval()


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
