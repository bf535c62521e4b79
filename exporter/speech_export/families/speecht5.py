"""SpeechT5, whose encoder and decoder have layers in front of them (prenets) that depend on the kind of input."""

from contextlib import AbstractContextManager

from torch import Tensor
from transformers import PreTrainedModel

from ..tracing.attention import frame_mask
from .forward_keywords import Keywords, forward_keywords
from .registry import DecoderFamily, EncoderFamily, register_decoder, register_encoder


def speecht5_mask(encoder: PreTrainedModel, frames: int, attention_mask: Tensor) -> Tensor:
    """Return which frames hold audio, bool [batch, frames]; the layers in front of the encoder know it."""
    return frame_mask(encoder.prenet, frames, attention_mask)


def renamed_input(decoder: PreTrainedModel) -> AbstractContextManager[None]:
    """Within this context, the decoder takes `input_ids` in place of `input_values`."""

    def rename(keywords: Keywords) -> Keywords:
        return {("input_values" if name == "input_ids" else name): keywords[name] for name in keywords}

    return forward_keywords(decoder.decoder, rename)


def max_positions(decoder: PreTrainedModel) -> int:
    """Return the maximum length of a sequence: rows of the table of positions, the first of which is padding's."""
    table = decoder.decoder.prenet.embed_positions
    return int(table.weights.shape[0]) - int(table.padding_idx) - 1


register_encoder(EncoderFamily(frame_mask=speecht5_mask, in_composites=False), "speecht5")
register_decoder(DecoderFamily(adapt=renamed_input, max_positions=max_positions), "speecht5")
