"""Load a speech model of transformers that has its encoder and its decoder in one class, such as Whisper.

Both halves are taken apart and joined to a composite, which computes the same: everything behind this file knows
composites only.
"""

import copy
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

from ..errors import ExportError, shortened
from .hub import HubOptions
from .weights import load_weights

REFUSED = {
    **dict.fromkeys(
        (
            *("fun_asr_nano", "granite_speech", "granite_speech_plus", "kyutai_speech_to_text", "qwen3_asr"),
            *("vibevoice_asr", "voxtral", "voxtral_realtime"),
        ),
        "it has no cross-attention: its decoder is a language model that reads audio among its tokens",
    ),
    **dict.fromkeys(("dia", "vibevoice"), "it makes speech from text"),
    "pop2piano": "its tokens are notes of music, not text",
}
"""Speech models of transformers that cannot be exported, by model type, each with the reason."""


def is_native(config: PretrainedConfig) -> bool:
    """Return whether `config` is that of a speech model with a decoder of its own."""
    return type(config) in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING and not isinstance(config, SpeechEncoderDecoderConfig)


def load_native(name: str, config: PretrainedConfig, hub: HubOptions) -> PreTrainedModel:
    """Load a speech model with a decoder of its own.

    Args:
        name: Directory or Hub id.
        config: Its configuration.
        hub: Options for the Hub.

    Raises:
        ExportError: It cannot be exported, or its weights are missing or do not fit.
    """
    if (why := REFUSED.get(config.model_type)) is not None:
        raise ExportError(f"{name} is a {config.model_type} model, which cannot be exported: {why}")
    model, missing = load_weights(MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING[type(config)], name, config, hub)
    if missing:
        raise ExportError(
            f"{name} lacks {len(missing)} of the model's weights: {shortened(missing)}; "
            "save it again with save_pretrained"
        )
    loaded: PreTrainedModel = model
    return loaded


def as_composite(model: PreTrainedModel) -> SpeechEncoderDecoderModel:
    """Return a composite of the halves of `model`, with the same weights in memory and the same settings."""
    encoder, decoder = _with_own_config(model.get_encoder()), _with_own_config(model.get_decoder())
    head = DecoderWithHead(decoder, model.get_output_embeddings())
    composite = SpeechEncoderDecoderModel(encoder=encoder, decoder=head).eval()
    composite.generation_config = model.generation_config
    return composite


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

    def _can_set_attn_implementation(self) -> bool:  # of its class, in transformers
        return bool(self.decoder._can_set_attn_implementation())

    def forward(self, input_ids: Tensor, **keywords: Any) -> CausalLMOutputWithCrossAttentions:
        """Return the logits [batch, tokens, vocabulary] of token ids int64 [batch, tokens], and the cache."""
        given = {name: value for name, value in keywords.items() if value is not None}
        output = self.decoder(input_ids=input_ids, **given)
        return CausalLMOutputWithCrossAttentions(
            logits=self.head(output.last_hidden_state), past_key_values=output.past_key_values
        )
