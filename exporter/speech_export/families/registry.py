"""What a family needs beyond the generic path. Most need nothing, and have no entry."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from speech_runtime.bundle.model_facts import EncoderFacts

from ..errors import ExportError
from ..tracing.masks import additive_mask, frame_mask

Rewrite = Callable[[PreTrainedModel], AbstractContextManager[None]]


def _as_it_is(_: PreTrainedModel) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class EncoderFamily:
    """A family of speech encoders.

    Attributes:
        facts: read what the runtime must know off a model; None for encoders of raw waveforms, which say it all in
            their configuration.
        rewrite: what is different while the encoder is traced.
        frame_mask: which of `frames` frames hold audio, bool [batch, frames], from the mask of the input.
        takes_mask: whether transformers accepts an attention mask for this encoder in a composite.
    """

    facts: Callable[[PreTrainedModel], EncoderFacts] | None = None
    rewrite: Rewrite = _as_it_is
    frame_mask: Callable[[PreTrainedModel, int, Tensor], Tensor] = frame_mask
    takes_mask: bool = True


@dataclass(frozen=True)
class DecoderFamily:
    """A family of text decoders.

    Attributes:
        adapt: what makes transformers' own composite able to call the decoder at all; active for the torch model
            that an export is verified against, too.
        rewrite: what is different while the decoder is traced.
        encoder_mask: the mask [batch, frames] as the decoder wants it, for so many queries.
        max_positions: tokens that a sequence may have; None for what the embeddings say.
        max_tokens: tokens that one step takes; None for any number.
        masks_audio: whether it heeds `encoder_mask`.
        why_not_static: why it cannot have a cache of one length for ever; None where it can.
    """

    adapt: Rewrite = _as_it_is
    rewrite: Rewrite = _as_it_is
    encoder_mask: Callable[[Tensor, int], Tensor] = additive_mask
    max_positions: Callable[[PreTrainedModel], int] | None = None
    max_tokens: int | None = None
    masks_audio: bool = True
    why_not_static: str | None = None


_encoders: dict[str, EncoderFamily] = {}
_decoders: dict[str, DecoderFamily] = {}
_refused: dict[str, str] = {}


def register_encoder(family: EncoderFamily, *model_types: str) -> None:
    """Enter what encoders of `model_types` need."""
    _encoders.update(dict.fromkeys(model_types, family))


def register_decoder(family: DecoderFamily, *model_types: str) -> None:
    """Enter what decoders of `model_types` need."""
    _decoders.update(dict.fromkeys(model_types, family))


def register_refusal(reason: str, *model_types: str) -> None:
    """Enter why `model_types` cannot be exported."""
    _refused.update(dict.fromkeys(model_types, reason))


def encoder_family(encoder: PreTrainedModel) -> EncoderFamily:
    """What the family of `encoder` needs.

    Raises:
        ExportError: it cannot be exported; says why.
    """
    check_not_refused(encoder.config)
    return _encoders.get(encoder.config.model_type, EncoderFamily())


def decoder_family(decoder: PreTrainedModel) -> DecoderFamily:
    """What the family of `decoder` needs.

    Raises:
        ExportError: it cannot be exported; says why.
    """
    check_not_refused(decoder.config)
    return _decoders.get(decoder.config.model_type, DecoderFamily())


def check_not_refused(config: PretrainedConfig) -> None:
    """Check that the family of `config` may be exported.

    Raises:
        ExportError: it is known not to work; says why.
    """
    if config.model_type in _refused:
        raise ExportError(f"{config.model_type} cannot be exported: {_refused[config.model_type]}")


def encoder_types() -> tuple[str, ...]:
    """Return the model types of encoders that have an entry."""
    return tuple(_encoders)


def refusals() -> dict[str, str]:
    """Return the reasons why families cannot be exported, by model type."""
    return dict(_refused)
