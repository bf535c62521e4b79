"""Wav2Vec2-BERT: log-mel features, one frame each, or one for several with an adapter."""

from transformers import PreTrainedModel

from speech_runtime.bundle.model_facts import EncoderFacts

from .registry import EncoderFamily, register_encoder


def facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of a Wav2Vec2-BERT encoder; the configuration limits its table of relative positions."""
    config = encoder.config
    return EncoderFacts(
        input_name="input_features",
        feature_size=config.feature_projection_input_dim,
        heads=config.num_attention_heads,
        min_length=1,
        max_length=config.max_source_positions if config.position_embeddings_type == "relative" else None,
        stride=1,
    )


register_encoder(EncoderFamily(facts=facts), "wav2vec2-bert")
