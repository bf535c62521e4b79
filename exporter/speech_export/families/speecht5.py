"""SpeechT5, whose encoder and decoder have layers in front of them (prenets) that depend on the kind of input."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..tracing.attention import frame_mask
from .registry import DecoderFamily, EncoderFamily, register_decoder, register_encoder


def speecht5_mask(encoder: PreTrainedModel, frames: int, attention_mask: Tensor) -> Tensor:
    """Return which frames hold audio, bool [batch, frames]; the layers in front of the encoder know it."""
    return frame_mask(encoder.prenet, frames, attention_mask)


@contextmanager
def renamed_input(decoder: PreTrainedModel) -> Iterator[None]:
    """Within this context, the decoder takes `input_ids` in place of `input_values`."""

    def rename(
        _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return arguments, {("input_values" if name == "input_ids" else name): keywords[name] for name in keywords}

    hook = decoder.decoder.register_forward_pre_hook(rename, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


register_encoder(EncoderFamily(frame_mask=speecht5_mask, in_composites=False), "speecht5")
register_decoder(DecoderFamily(adapt=renamed_input), "speecht5")
