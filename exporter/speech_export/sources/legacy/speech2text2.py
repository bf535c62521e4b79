"""Speech2Text2, the decoder of `facebook/s2t-wav2vec2-large-en-de` and others, which transformers 5 no longer has.

It is TrOCR's decoder with sinusoidal positions and without a layer norm after the embeddings. The two position tables
differ only in length: both number positions from the padding token's id onwards, and skip padding.
"""

from typing import Any

from transformers import PretrainedConfig, SpeechEncoderDecoderConfig

_MODEL_TYPE = "speech_to_text_2"
_HEAD = {r"^decoder\.lm_head\.": "decoder.output_projection."}


def speech2text2_config(settings: dict[str, Any]) -> PretrainedConfig | None:
    """Return the configuration of a composite with a Speech2Text2 decoder, described as TrOCR's.

    Args:
        settings: Content of the config.json of any checkpoint.

    Returns:
        The configuration; None if `settings` are another model's.
    """
    decoder = settings.get("decoder")
    if not isinstance(decoder, dict) or decoder.get("model_type") != _MODEL_TYPE:
        return None
    return SpeechEncoderDecoderConfig.from_dict({**settings, "decoder": _as_trocr(decoder)})


def renamed_weights(config: PretrainedConfig) -> dict[str, str] | None:
    """Return the patterns that rename the weights of a Speech2Text2 decoder to TrOCR's.

    Args:
        config: Configuration of any composite.

    Returns:
        Pattern → replacement, the `key_mapping` of `from_pretrained`; None for other decoders.
    """
    return _HEAD if config.decoder.model_type == "trocr" else None


def _as_trocr(decoder: dict[str, Any]) -> dict[str, Any]:
    """Return a `Speech2Text2Config` as a `TrOCRConfig`; missing settings get the defaults of Speech2Text2."""
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
