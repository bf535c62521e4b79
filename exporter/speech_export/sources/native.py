"""Take a speech model with a decoder of its own, such as Whisper, apart, and join its halves to a composite.

The composite computes the same, so that everything behind this file knows composites only.
"""

import copy
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
)
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from speech_runtime.dataclass_json import FieldError

from ..errors import ExportError, shortened
from ..families import encoder_family, native_family
from ..tracing.facts import FRAME_MASK
from .composite import Composite
from .hub import HubOptions
from .weights import load_part, refuse_missing


def is_native(config: PretrainedConfig) -> bool:
    """Return whether `config` is that of a speech model with a decoder of its own."""
    return type(config) in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING and not isinstance(config, SpeechEncoderDecoderConfig)


def load_native(name: str, config: PretrainedConfig, hub: HubOptions) -> PreTrainedModel:
    """Load a speech model with a decoder of its own, or that part of a checkpoint which can do more.

    SeamlessM4T is published as a whole, with halves that read text and make speech.

    Args:
        name: Directory or Hub id.
        config: Its configuration.
        hub: Options for the Hub.

    Raises:
        ExportError: Its family cannot be exported, or weights are missing or left over.
    """
    native_family(config)
    kind = MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING[type(config)]
    model: PreTrainedModel
    model, missing = load_part(kind, name, config, config, hub)
    others = sorted({*(config.architectures or ())} - {kind.__name__})
    if missing and others:
        raise ExportError(
            f"{name} is a {', '.join(others)}, which lacks {len(missing)} weights of a {kind.__name__}: "
            f"{shortened(missing)}; name a checkpoint that turns speech into text"
        )
    refuse_missing(name, missing)
    return model


def native_composite(
    model: PreTrainedModel, feature_extractor: Any | None, tokenizer: Any | None, source: str
) -> Composite:
    """Return a composite with the weights of `model` in memory, its configuration, settings and prompt.

    Raises:
        ExportError: Its family cannot be exported, or its prompt is not one of its family.
    """
    family = native_family(model.config)
    settings = copy.deepcopy(model.generation_config)
    try:
        prompt = family.prompt(settings, model.config, tokenizer, source)
    except FieldError as error:
        raise ExportError(f"{source}: {error}; correct its generation_config.json, or take that setting out") from error
    for name in family.settings:
        if hasattr(settings, name):
            delattr(settings, name)
    composite = joined_halves(model)
    composite.generation_config = settings
    return Composite(composite, feature_extractor, tokenizer, source, native_config=model.config, prompt=prompt)


def joined_halves(model: PreTrainedModel) -> SpeechEncoderDecoderModel:
    """Return a composite of the encoder and the decoder of `model`, which share its weights in memory."""
    encoder, decoder = _with_own_config(model.get_encoder()), _with_own_config(model.get_decoder())
    family = encoder_family(encoder)
    if family.takes_mask and not hasattr(encoder, FRAME_MASK):
        setattr(encoder, FRAME_MASK, partial(family.frame_mask, encoder))
    # The decoder takes the encoder's output as it is, whatever its width; a composite would project it.
    decoder.config.cross_attention_hidden_size = encoder.config.hidden_size
    native_family(model.config).join(encoder, decoder)
    head = DecoderWithHead(decoder, model.get_output_embeddings())
    return SpeechEncoderDecoderModel(encoder=encoder, decoder=head).eval()


def _with_own_config(half: PreTrainedModel) -> PreTrainedModel:
    """Give a half and its layers a configuration that the other half does not share: tracing changes it."""
    shared, own = half.config, copy.deepcopy(half.config)
    for module in half.modules():
        if getattr(module, "config", None) is shared:
            module.config = own
    return half


class DecoderWithHead(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A decoder without a head of its own, and the head that its whole model has."""

    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, decoder: PreTrainedModel, head: nn.Module) -> None:
        super().__init__(decoder.config)
        self.decoder, self.head = decoder, head

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of the decoder."""
        embedding: nn.Module = self.decoder.get_input_embeddings()
        return embedding

    def get_output_embeddings(self) -> nn.Module:
        """Return the head."""
        return self.head

    def _can_set_attn_implementation(self) -> bool:  # of its class, in transformers
        return bool(self.decoder._can_set_attn_implementation())

    def forward(self, input_ids: Tensor, **keywords: Any) -> CausalLMOutputWithCrossAttentions:
        """Return the logits [batch, tokens, vocabulary] of token ids int64 [batch, tokens], and the cache."""
        given = {name: value for name, value in keywords.items() if value is not None}
        output = self.decoder(input_ids=input_ids, **given)
        return CausalLMOutputWithCrossAttentions(
            logits=self.head(output.last_hidden_state), past_key_values=output.past_key_values
        )
