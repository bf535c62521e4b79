"""What the manifest says of a model: read off its configuration, under whichever name the family keeps it."""

from typing import Any

from speech_runtime.bundle import DecoderFacts, EncoderFacts
from transformers import PreTrainedModel, SpeechEncoderDecoderModel

from .graphs import decoder_layers


def encoder_facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Facts of the speech encoder."""
    config = encoder.config
    return EncoderFacts(
        input_name=encoder.main_input_name,
        heads=int(config.num_attention_heads),
        conv_kernel=tuple(config.conv_kernel),
        conv_stride=tuple(config.conv_stride),
    )


def decoder_facts(model: SpeechEncoderDecoderModel, top_k: int) -> DecoderFacts:
    """Facts of the text decoder; at most `top_k` candidates, or its whole vocabulary."""
    decoder = model.decoder
    heads = int(_first(decoder.config, "decoder_attention_heads", "num_attention_heads"))
    vocab_size = int(decoder.get_output_embeddings().weight.shape[0])
    return DecoderFacts(
        layers=decoder_layers(decoder),
        heads=heads,
        head_dim=int(decoder.config.hidden_size) // heads,
        vocab_size=vocab_size,
        max_positions=int(decoder.config.max_position_embeddings),
        top_k=min(top_k, vocab_size),
    )


def _first(config: Any, *names: str) -> Any:
    return next(value for name in names if (value := getattr(config, name, None)) is not None)
