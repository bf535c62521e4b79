"""Encoders and decoders at the widths that users have, with few layers and random weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BartConfig,
    BertConfig,
    GenerationConfig,
    GPT2Config,
    MBartConfig,
    PretrainedConfig,
    PreTrainedModel,
    SpeechEncoderDecoderModel,
    TrOCRConfig,
)

from composites import EOS, PAD, START, decoder_model
from convolutions import REAL

_DECODER: dict[str, Any] = {"is_decoder": True, "add_cross_attention": True}
_LAYERS = 2

_XLS_R = "wav2vec2, XLS-R-300M with adapter"
_WITHOUT_ADAPTER = "wav2vec2, large"

DECODERS: dict[str, Callable[[], PretrainedConfig]] = {
    "bert-base": lambda: BertConfig(**_DECODER, num_hidden_layers=_LAYERS),
    "mbart-50": lambda: MBartConfig(
        **_DECODER, vocab_size=250_054, decoder_layers=_LAYERS, encoder_layers=_LAYERS, scale_embedding=True
    ),
    "bart-large": lambda: BartConfig(**_DECODER, decoder_layers=_LAYERS, encoder_layers=_LAYERS),
    "gpt2": lambda: GPT2Config(**_DECODER, n_layer=_LAYERS),
    "speech2text2": lambda: TrOCRConfig(
        vocab_size=10_224,
        pad_token_id=PAD,  # not the start token: positions skip it
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
    ("wav2vec2, base", "bert-base"),
    (_XLS_R, "mbart-50"),
    ("hubert, large", "bart-large"),
    (_WITHOUT_ADAPTER, "speech2text2"),
    ("whisper, small", "gpt2"),
)
"""The composites that are fine-tuned most."""


def real_shape(encoder: str, decoder: str) -> SpeechEncoderDecoderModel:
    """A composite at its real widths and vocabulary, with two layers on either side."""
    with _seeded():
        text = AutoModelForCausalLM.from_config(DECODERS[decoder]())
        if (padding := text.config.pad_token_id) is not None:  # trained models never say it; TrOCR's positions skip it
            text.get_output_embeddings().weight.data[padding] = 0
        return _ready(SpeechEncoderDecoderModel(encoder=_speech(encoder, _LAYERS), decoder=text))


def one_layer(encoder: str) -> SpeechEncoderDecoderModel:
    """An encoder at its real width with one layer, and a tiny decoder."""
    with _seeded():
        return _ready(SpeechEncoderDecoderModel(encoder=_speech(encoder, 1), decoder=decoder_model("bert")))


def _speech(encoder: str, layers: int) -> PreTrainedModel:
    config = REAL[_XLS_R if encoder == _WITHOUT_ADAPTER else encoder]()
    config.num_hidden_layers = layers
    if encoder == _WITHOUT_ADAPTER:
        config.add_adapter = False
    if not config.is_encoder_decoder:
        return AutoModel.from_config(config)
    config.encoder_layers = layers
    config.decoder_layers = 1
    return AutoModel.from_config(config).get_encoder()


def _ready(model: SpeechEncoderDecoderModel) -> SpeechEncoderDecoderModel:
    model.generation_config = GenerationConfig(decoder_start_token_id=START, pad_token_id=PAD, eos_token_id=EOS)
    return model.eval()


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
