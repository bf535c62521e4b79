"""Test the model facts of the manifest against the models themselves."""

import pytest
import torch
from transformers import AutoModel, PreTrainedModel, SpeechEncoderDecoderModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from composites import DECODERS, ENCODERS, composite
from matrix import model_type
from native_models import native
from speech_export.families import decoder_family, encoder_family
from speech_export.sources.native import joined_halves
from speech_export.tracing.facts import decoder_facts, encoder_facts, encoder_width
from speech_runtime.bundle.model_facts import DecoderFacts, EncoderFacts

GROWING = {"trocr, sinusoidal", "xglm"}
"""Their tables grow in torch; those in a graph do not."""


def decode(model: SpeechEncoderDecoderModel, facts: DecoderFacts, positions: int) -> torch.Tensor:
    """Logits of so many tokens, one after the other where the family takes one at a time."""
    cache, width = EncoderDecoderCache(DynamicCache(), DynamicCache()), encoder_width(model)
    tokens = torch.full((1, positions), 7)
    with torch.no_grad(), decoder_family(model.decoder).adapt(model.decoder):
        for chunk in torch.split(tokens, facts.max_tokens or positions, dim=1):
            logits: torch.Tensor = model.decoder(
                input_ids=chunk,
                encoder_hidden_states=torch.ones(1, 3, width),
                encoder_attention_mask=torch.ones(1, 3, dtype=torch.int64),
                past_key_values=cache,
                use_cache=True,
            ).logits
    return logits


@pytest.mark.parametrize("family", DECODERS)
def test_a_sequence_may_be_as_long_as_the_facts_say_and_no_longer(family: str) -> None:
    model = composite(family)
    facts = decoder_facts(model, top_k=4)
    assert facts.max_positions is not None
    assert decode(model, facts, facts.max_positions).isfinite().all()
    if family not in GROWING:
        with pytest.raises((IndexError, RuntimeError)):
            decode(model, facts, facts.max_positions + 1)


def test_speecht5_has_a_table_of_positions_that_cannot_grow() -> None:
    model = joined_halves(native("speecht5"))
    facts, encoder = decoder_facts(model, top_k=4), encoder_facts(model.encoder)
    table = model.decoder.decoder.prenet.embed_positions
    assert facts.max_positions == len(table.weights) - table.padding_idx - 1 >= model.decoder.config.max_text_positions
    assert encoder.max_length is not None
    assert output_frames(model.encoder, encoder, encoder.max_length) == model.encoder.config.max_speech_positions
    assert len(model.encoder.prenet.pos_sinusoidal_embed.weights) >= model.encoder.config.max_speech_positions


def output_frames(encoder: PreTrainedModel, facts: EncoderFacts, length: int) -> int:
    """The number of frames that an encoder makes of noise of that length."""
    shape = (1, length) if facts.feature_size is None else (1, length, facts.feature_size)
    with torch.no_grad():
        return int(encoder(encoder_family(encoder).arrange(encoder, torch.randn(shape)))[0].shape[1])


@pytest.mark.parametrize("family", ENCODERS)
def test_the_shortest_input_makes_a_frame_and_one_less_makes_none(family: str) -> None:
    encoder = composite("bert", family).encoder
    facts = encoder_facts(encoder)
    assert facts.heads == 4

    def frames(length: int) -> int:
        return output_frames(encoder, facts, length)

    assert frames(facts.min_length) >= 1
    pads_what_it_lacks = model_type(family) in ("sew", "sew-d")
    if not pads_what_it_lacks and facts.max_length != facts.min_length:
        with pytest.raises((RuntimeError, ValueError)):
            frames(facts.min_length - 1)


@pytest.mark.parametrize("family", ENCODERS)
def test_output_has_as_many_frames_as_the_facts_say_or_few_less(family: str) -> None:
    encoder = composite("bert", family).encoder
    facts = encoder_facts(encoder)
    assert facts.frame_stride is not None
    for extra in (0, 1, 7, 20 * facts.stride + 3, 251 * facts.stride + 1):
        length = min(facts.min_length + extra, facts.max_length or facts.min_length + extra)
        frames = output_frames(encoder, facts, length)
        assert 0 <= length // facts.frame_stride + facts.extra_frames - frames <= 2


@pytest.mark.parametrize(("kernels", "strides"), [([10, 3, 3], [5, 2, 1]), ([7, 4, 3], [3, 1, 2])])
def test_a_receptive_field_of_several_strides_has_facts(kernels: list[int], strides: list[int]) -> None:
    config = ENCODERS["wav2vec2"]()
    config.conv_kernel, config.conv_stride = kernels, strides
    encoder = AutoModel.from_config(config).eval()
    facts = encoder_facts(encoder)
    assert facts.frame_stride is not None
    for extra in range(4 * facts.stride):
        length = facts.min_length + extra
        frames = output_frames(encoder, facts, length)
        assert 0 < frames <= length // facts.frame_stride + facts.extra_frames
