"""Tiny composite models with random weights, spread wide enough that their answers are not near-ties.

One entry for each encoder and decoder family, and for each of their variants that changes the graph.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import (
    ASTConfig,
    AutoModel,
    AutoModelForCausalLM,
    BartConfig,
    BertConfig,
    BertGenerationConfig,
    BigBirdPegasusConfig,
    BlenderbotConfig,
    BlenderbotSmallConfig,
    CamembertConfig,
    Data2VecAudioConfig,
    Data2VecTextConfig,
    ElectraConfig,
    ErnieConfig,
    GenerationConfig,
    GPT2Config,
    HubertConfig,
    MarianConfig,
    MBartConfig,
    MvpConfig,
    PegasusConfig,
    PLBartConfig,
    PretrainedConfig,
    PreTrainedModel,
    ProphetNetConfig,
    RemBertConfig,
    RobertaConfig,
    RobertaPreLayerNormConfig,
    RoCBertConfig,
    RoFormerConfig,
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
    WhisperConfig,
    XGLMConfig,
    XLMRobertaConfig,
    XLMRobertaXLConfig,
    XmodConfig,
)

VOCABULARY = 90
START, PAD, EOS = 1, 3, 2

_SPREAD = 0.2
_DECODER = {"vocab_size": VOCABULARY, "is_decoder": True, "add_cross_attention": True}
_TOKENS = {"bos_token_id": START, "pad_token_id": PAD, "eos_token_id": EOS}
_WAVEFORM: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "initializer_range": _SPREAD,
}
_GROUP = _WAVEFORM | {"feat_extract_norm": "group"}
_LAYER = _WAVEFORM | {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
_CONFORMER = _WAVEFORM | {"feat_extract_norm": "layer", "conv_depthwise_kernel_size": 5}
_SEW = {name: value for name, value in _WAVEFORM.items() if name != "num_feat_extract_layers"} | {"squeeze_factor": 2}
_FEATURES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "feature_projection_input_dim": 160,
    "conv_depthwise_kernel_size": 5,
    "initializer_range": _SPREAD,
}
_BERT: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "initializer_range": _SPREAD,
    **_DECODER,
    **_TOKENS,
}
_BART: dict[str, Any] = {
    "d_model": 24,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "init_std": _SPREAD,
    "forced_eos_token_id": None,
    **_DECODER,
    **_TOKENS,
}
_NARROW_HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
"""Heads whose size is no multiple of 8: their cache grows on the CPU too."""
_GPT2: dict[str, Any] = {
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "n_positions": 64,
    "initializer_range": _SPREAD,
    **_DECODER,
    **_TOKENS,
}
_TROCR: dict[str, Any] = {
    "d_model": 24,
    "decoder_layers": 2,
    "decoder_attention_heads": 3,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "init_std": _SPREAD,
    "cross_attention_hidden_size": None,
    **_DECODER,
    **_TOKENS,
}

ENCODERS: dict[str, Callable[[], PretrainedConfig]] = {
    "wav2vec2": lambda: Wav2Vec2Config(**_LAYER),
    "wav2vec2, group norm": lambda: Wav2Vec2Config(**_GROUP),
    "wav2vec2, adapter": lambda: Wav2Vec2Config(**_LAYER, add_adapter=True, num_adapter_layers=2),
    "wav2vec2, MMS": lambda: Wav2Vec2Config(**_LAYER, adapter_attn_dim=8),
    "hubert": lambda: HubertConfig(**_LAYER),
    "hubert, group norm": lambda: HubertConfig(**_GROUP),
    "hubert, batch norm positions": lambda: HubertConfig(**_LAYER, conv_pos_batch_norm=True),
    "wavlm": lambda: WavLMConfig(**_LAYER, num_buckets=16, max_bucket_distance=40),
    "wavlm, group norm": lambda: WavLMConfig(**_GROUP, num_buckets=16, max_bucket_distance=40),
    "unispeech": lambda: UniSpeechConfig(**_LAYER),
    "unispeech-sat": lambda: UniSpeechSatConfig(**_LAYER),
    "data2vec-audio": lambda: Data2VecAudioConfig(**_WAVEFORM, conv_pos_kernel_size=5, num_conv_pos_embedding_layers=2),
    "sew": lambda: SEWConfig(**_SEW, feat_extract_norm="layer"),
    "sew, group norm": lambda: SEWConfig(**_SEW, feat_extract_norm="group"),
    "sew-d": lambda: SEWDConfig(**_SEW, feat_extract_norm="layer", position_buckets=16, max_position_embeddings=64),
    "wav2vec2-conformer, relative": lambda: Wav2Vec2ConformerConfig(**_CONFORMER, position_embeddings_type="relative"),
    "wav2vec2-conformer, rotary": lambda: Wav2Vec2ConformerConfig(**_CONFORMER, position_embeddings_type="rotary"),
    "wav2vec2-bert, relative_key": lambda: Wav2Vec2BertConfig(**_FEATURES, position_embeddings_type="relative_key"),
    "wav2vec2-bert, relative": lambda: Wav2Vec2BertConfig(**_FEATURES, position_embeddings_type="relative"),
    "wav2vec2-bert, rotary": lambda: Wav2Vec2BertConfig(**_FEATURES, position_embeddings_type="rotary"),
    "wav2vec2-bert, no positions": lambda: Wav2Vec2BertConfig(**_FEATURES, position_embeddings_type=None),
    "wav2vec2-bert, adapter": lambda: Wav2Vec2BertConfig(
        **_FEATURES, position_embeddings_type="relative_key", add_adapter=True
    ),
    "speech_to_text": lambda: Speech2TextConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=48,
        conv_channels=16,
        init_std=_SPREAD,
        max_source_positions=600,
    ),
    "whisper, encoder": lambda: WhisperConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_layers=1,
        decoder_attention_heads=4,
        num_mel_bins=20,
        max_source_positions=40,
        init_std=_SPREAD,
    ),
    "audio-spectrogram-transformer": lambda: ASTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_length=100,
        num_mel_bins=24,
        patch_size=8,
        frequency_stride=6,
        time_stride=6,
        initializer_range=_SPREAD,
    ),
}

DECODERS: dict[str, Callable[[], PretrainedConfig]] = {
    "bert": lambda: BertConfig(**_BERT),
    "bert, untied head": lambda: BertConfig(**_BERT, tie_word_embeddings=False),
    "bert, width of the encoder": lambda: BertConfig(**_BERT | {"hidden_size": 32, "num_attention_heads": 4}),
    "roberta": lambda: RobertaConfig(**_BERT),
    "xlm-roberta": lambda: XLMRobertaConfig(**_BERT),
    "xlm-roberta-xl": lambda: XLMRobertaXLConfig(**_BERT),
    "camembert": lambda: CamembertConfig(**_BERT),
    "electra": lambda: ElectraConfig(**_BERT, embedding_size=16),
    "bert-generation": lambda: BertGenerationConfig(**_BERT),
    "roformer": lambda: RoFormerConfig(**_BERT, embedding_size=16),
    "roformer, rotary value": lambda: RoFormerConfig(**_BERT, rotary_value=True),
    "rembert": lambda: RemBertConfig(**_BERT, input_embedding_size=16, output_embedding_size=20),
    "data2vec-text": lambda: Data2VecTextConfig(**_BERT),
    "roberta-prelayernorm": lambda: RobertaPreLayerNormConfig(**_BERT),
    "ernie": lambda: ErnieConfig(**_BERT, use_task_id=True),
    "xmod": lambda: XmodConfig(**_BERT, languages=("en_XX", "de_DE"), default_language="de_DE", ln_before_adapter=True),
    "roc_bert": lambda: RoCBertConfig(**_BERT),
    "gpt2": lambda: GPT2Config(**_GPT2),
    "gpt-sw3": lambda: GPT2Config(**_GPT2),
    "bart": lambda: BartConfig(**_BART),
    "bart, fewer encoder layers": lambda: BartConfig(**_BART | {"encoder_layers": 1}),
    "bart, scaled embedding": lambda: BartConfig(**_BART, scale_embedding=True),
    "mbart": lambda: MBartConfig(**_BART | _NARROW_HEADS, scale_embedding=True),
    "blenderbot": lambda: BlenderbotConfig(**_BART),
    "blenderbot-small": lambda: BlenderbotSmallConfig(**_BART),
    "pegasus": lambda: PegasusConfig(**_BART),
    "marian": lambda: MarianConfig(**_BART),
    "plbart": lambda: PLBartConfig(**_BART),
    "mvp": lambda: MvpConfig(**_BART),
    "bigbird_pegasus": lambda: BigBirdPegasusConfig(**_BART),
    "trocr": lambda: TrOCRConfig(**_TROCR),
    "trocr, sinusoidal": lambda: TrOCRConfig(
        **_TROCR, use_learned_position_embeddings=False, layernorm_embedding=False, scale_embedding=True
    ),
    "trocr, cross width": lambda: TrOCRConfig(**_TROCR | {"cross_attention_hidden_size": 32}),
    "whisper": lambda: WhisperConfig(
        **{name: value for name, value in _BART.items() if name != "max_position_embeddings"},
        max_target_positions=64,
    ),
    "xglm": lambda: XGLMConfig(
        d_model=24,
        ffn_dim=40,
        num_layers=2,
        attention_heads=4,
        max_position_embeddings=64,
        init_std=_SPREAD,
        **_DECODER,
        **_TOKENS,
    ),
    "prophetnet": lambda: ProphetNetConfig(
        hidden_size=24,
        num_encoder_layers=3,
        num_decoder_layers=2,
        num_encoder_attention_heads=4,
        num_decoder_attention_heads=4,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        max_position_embeddings=64,
        init_std=_SPREAD,
        ngram=2,
        num_buckets=8,
        relative_max_distance=16,
        **_DECODER,
        **_TOKENS | {"pad_token_id": 0},
    ),
}

CORE_DECODERS = ("bert", "gpt2", "bart", "mbart")
"""Those that most tests use."""


def composite(
    decoder: str, encoder: str = "wav2vec2", seed: int = 0, spread: float = _SPREAD
) -> SpeechEncoderDecoderModel:
    """An encoder and a decoder of the given families, of different widths, ready to generate.

    `spread` is the standard deviation of their weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        speech, text = encoder_model(encoder, spread), decoder_model(decoder, spread)
        model = SpeechEncoderDecoderModel(encoder=speech, decoder=text).eval()
        randomise(model)
    padding = model.decoder.config.pad_token_id
    model.generation_config = GenerationConfig(decoder_start_token_id=START, pad_token_id=padding, eos_token_id=EOS)
    return model


def encoder_model(family: str, spread: float = _SPREAD) -> PreTrainedModel:
    """A tiny encoder; those of Speech2Text and Whisper exist only as a part of their models."""
    model = AutoModel.from_config(_spread(ENCODERS[family](), spread))
    return model.get_encoder() if model.config.is_encoder_decoder else model


def decoder_model(family: str, spread: float = _SPREAD) -> PreTrainedModel:
    """A tiny decoder with cross-attention."""
    return AutoModelForCausalLM.from_config(_spread(DECODERS[family](), spread))


def _spread(config: PretrainedConfig, spread: float) -> PretrainedConfig:
    """The configuration with weights so far apart, whichever name it has for that."""
    setattr(config, "init_std" if hasattr(config, "init_std") else "initializer_range", spread)
    return config


def randomise(model: nn.Module) -> None:
    """Random biases and norms too: what is 0 or 1 hides a mistake."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and "masked_spec_embed" not in name:
            parameter.data += torch.randn_like(parameter) * 0.1
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.data = torch.rand_like(buffer) + 0.5
