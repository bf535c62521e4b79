"""Whisper, whose encoder takes 30 seconds of audio, always, and whose decoder takes no mask for them.

transformers' own composite cannot call the decoder: `WhisperForCausalLM.forward` takes `encoder_outputs`. Whisper never
masks its cross-attention, since its own encoder pads all audio to 30 seconds; so it attends to the padding of a batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from speech_runtime.bundle.model_facts import EncoderFacts

from .feature_encoders import every_frame
from .registry import DecoderFamily, EncoderFamily, register_decoder, register_encoder


def whisper_facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of a Whisper encoder: its positions are for a window of a fixed length."""
    config = encoder.config
    stride = int(encoder.conv1.stride[0] * encoder.conv2.stride[0])
    window = config.max_source_positions * stride
    return EncoderFacts(
        input_name="input_features",
        feature_size=config.num_mel_bins,
        heads=config.encoder_attention_heads,
        min_length=window,
        max_length=window,
        stride=stride,
    )


def features_first(inputs: Tensor) -> Tensor:
    """Turn [batch, time, features] into [batch, features, time]."""
    return inputs.transpose(1, 2)


@contextmanager
def renamed_input(decoder: PreTrainedModel) -> Iterator[None]:
    """Within this context, the decoder takes `encoder_hidden_states` and ignores `encoder_attention_mask`."""

    def rename(
        _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        keywords = {name: value for name, value in keywords.items() if name != "encoder_attention_mask"}
        keywords["encoder_outputs"] = keywords.pop("encoder_hidden_states")
        return arguments, keywords

    hook = decoder.register_forward_pre_hook(rename, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


register_encoder(
    EncoderFamily(facts=whisper_facts, frame_mask=every_frame, takes_mask=False, arrange=features_first), "whisper"
)
register_decoder(DecoderFamily(adapt=renamed_input, masks_audio=False), "whisper")
