"""Speech2Text2, the decoder of `facebook/s2t-wav2vec2-large-en-de` and kin, which transformers 5 no longer has.

It is TrOCR's decoder with sinusoidal positions and without a layer norm after the embeddings. Their position tables
differ in length only: both count from the padding token on, and leave padding out of the count.
"""

from typing import Any

from transformers import PretrainedConfig, SpeechEncoderDecoderConfig

from ..hub import HubOptions, read_settings

_MODEL_TYPE = "speech_to_text_2"
_HEAD = {r"^decoder\.lm_head\.": "decoder.output_projection."}


def load_speech2text2_config(name: str, hub: HubOptions) -> PretrainedConfig | None:
    """The configuration of a composite with a Speech2Text2 decoder, which it gives as TrOCR's.

    Args:
        name: directory or Hub id of any checkpoint.
        hub: how to reach the Hub.

    Returns:
        The configuration, or None where there is none or it is another model's.
    """
    settings = read_settings(name, hub)
    decoder = settings.get("decoder")
    if not isinstance(decoder, dict) or decoder.get("model_type") != _MODEL_TYPE:
        return None
    return SpeechEncoderDecoderConfig.from_dict({**settings, "decoder": _as_trocr(decoder)})


def renamed_weights(config: PretrainedConfig) -> dict[str, str] | None:
    """What the weights of a Speech2Text2 decoder are called in TrOCR's.

    Args:
        config: of any composite.

    Returns:
        Pattern → replacement, the `key_mapping` of `from_pretrained`; None for other decoders.
    """
    return _HEAD if config.decoder.model_type == "trocr" else None


def _as_trocr(decoder: dict[str, Any]) -> dict[str, Any]:
    """`Speech2Text2Config` as `TrOCRConfig`; what the file does not say has the defaults of the former."""
    defaults = {
        "vocab_size": 10000,
        "d_model": 256,
        "decoder_layers": 6,
        "decoder_ffn_dim": 2048,
        "decoder_attention_heads": 4,
        "activation_function": "relu",
        "scale_embedding": True,
    }
    positions = decoder.get("max_target_positions", 1024)
    fixed = {
        "model_type": "trocr",
        "max_position_embeddings": positions,
        "use_learned_position_embeddings": False,
        "layernorm_embedding": False,
    }
    return defaults | {key: value for key, value in decoder.items() if key != "max_target_positions"} | fixed
