"""What the manifest says of a model: read off its configuration, under whichever name the family keeps it."""

import inspect
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from speech_runtime.bundle import DecoderFacts, EncoderFacts

from .errors import ExportError
from .graphs import decoder_layers


def encoder_facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Facts of the speech encoder.

    Raises:
        ExportError: its configuration lacks one of them.
    """
    config = encoder.config
    return EncoderFacts(
        input_name=encoder.main_input_name,
        heads=int(_fact(config, "num_attention_heads")),
        conv_kernel=tuple(_fact(config, "conv_kernel")),
        conv_stride=tuple(_fact(config, "conv_stride")),
    )


def decoder_facts(decoder: PreTrainedModel, top_k: int) -> DecoderFacts:
    """Facts of the text decoder; at most `top_k` candidates, or its whole vocabulary.

    Raises:
        ExportError: its configuration lacks one of them, or it cannot attend to an encoder.
    """
    config = decoder.config
    if "encoder_hidden_states" not in inspect.signature(decoder.forward).parameters:
        raise ExportError(f"{config.model_type} has no cross-attention: as a decoder it would never hear the audio")
    heads = int(_fact(config, "decoder_attention_heads", "num_attention_heads"))
    vocab_size = int(decoder.get_output_embeddings().weight.shape[0])
    return DecoderFacts(
        layers=decoder_layers(decoder),
        heads=heads,
        head_dim=int(config.hidden_size) // heads,
        vocab_size=vocab_size,
        max_positions=int(_fact(config, "max_position_embeddings")),
        top_k=min(top_k, vocab_size),
    )


def _fact(config: PretrainedConfig, *names: str) -> Any:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return value
    raise ExportError(f"{config.model_type} cannot be exported yet: its configuration has no {' or '.join(names)}")
