"""Speech2Text's encoder: log-mel features, and sinusoidal positions from a table."""

from transformers import PreTrainedModel

from speech_runtime.bundle.model_facts import EncoderFacts

from .registry import EncoderFamily, register_encoder


def facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of a Speech2Text encoder; its subsampling convolutions have a stride of 2 each."""
    config = encoder.config
    stride = 2**config.num_conv_layers
    return EncoderFacts(
        input_name="input_features",
        feature_size=config.input_feat_per_channel * config.input_channels,
        heads=config.encoder_attention_heads,
        min_length=1,
        max_length=config.max_source_positions * stride,
        stride=stride,
    )


register_encoder(EncoderFamily(facts=facts), "speech_to_text")
