"""Whisper's decoder takes `encoder_hidden_states` under another name, and no mask for them.

transformers' own composite cannot call it: `WhisperForCausalLM.forward` takes `encoder_outputs`. Whisper never masks
its cross-attention, since its own encoder pads all audio to 30 seconds; so it also attends to the padding of a batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from .registry import DecoderFamily, register_decoder


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


register_decoder(DecoderFamily(adapt=renamed_input, masks_audio=False), "whisper")
