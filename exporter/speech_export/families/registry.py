"""Registry of the families that need special treatment or cannot be exported. Most families have no entry."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel

from speech_runtime.bundle.model_facts import EncoderFacts, PromptTemplate

from ..errors import ExportError
from ..tracing.attention import additive_mask, frame_mask

Rewrite = Callable[[PreTrainedModel], AbstractContextManager[None]]


def _as_it_is(_: PreTrainedModel) -> AbstractContextManager[None]:
    return nullcontext()


def _unchanged(_: PreTrainedModel, inputs: Tensor) -> Tensor:
    return inputs


@dataclass(frozen=True)
class EncoderFamily:
    """A family of speech encoders.

    Attributes:
        facts: Function that reads the facts for the runtime from a model; None for encoders of raw waveforms, whose
            configuration has them all.
        rewrite: Context in which the encoder is traced.
        frame_mask: Function (encoder, frames, mask of the input) that returns a mask bool [batch, frames], true for the
            frames with audio.
        takes_mask: If true, transformers accepts an attention mask for this encoder in a composite.
        arrange: Function (encoder, model input [batch, samples] or [batch, time, features]) that returns the input in
            the form that the encoder takes.
        in_composites: If true, transformers can make it the encoder of a composite, and not only of its own model.
    """

    facts: Callable[[PreTrainedModel], EncoderFacts] | None = None
    rewrite: Rewrite = _as_it_is
    frame_mask: Callable[[PreTrainedModel, int, Tensor], Tensor] = frame_mask
    takes_mask: bool = True
    arrange: Callable[[PreTrainedModel, Tensor], Tensor] = _unchanged
    in_composites: bool = True


@dataclass(frozen=True)
class DecoderFamily:
    """A family of text decoders.

    Attributes:
        adapt: Context in which transformers' own composite can call the decoder; also active for the torch
            model that an export is verified against.
        rewrite: Context in which the decoder is traced.
        encoder_mask: Function (mask [batch, frames], number of queries) that returns the mask in the decoder's form.
        max_positions: Function that returns the maximum number of tokens of a sequence; None to read the embeddings.
        max_tokens: Maximum number of tokens of one step; None for any number.
        masks_audio: If true, the decoder uses `encoder_mask`.
        why_not_static: Reason why it cannot have a static cache; None if it can.
        why_not_tree: Reason why its beams cannot share a cache; None if they can.
    """

    adapt: Rewrite = _as_it_is
    rewrite: Rewrite = _as_it_is
    encoder_mask: Callable[[Tensor, int], Tensor] = additive_mask
    max_positions: Callable[[PreTrainedModel], int] | None = None
    max_tokens: int | None = None
    masks_audio: bool = True
    why_not_static: str | None = None
    why_not_tree: str | None = None


Prompt = Callable[[GenerationConfig, PretrainedConfig, Any | None, str], PromptTemplate | None]
"""Function (generation settings, configuration, tokenizer, name for messages) that returns the prompt of a model."""


def _no_prompt(*_: object) -> None:
    return None


def _unchanged_halves(*_: object) -> None:
    pass


@dataclass(frozen=True)
class NativeFamily:
    """A family of speech models that have a decoder of their own.

    Attributes:
        prompt: Function that returns the prompt of a model; None for a start token alone.
        settings: Generation settings that the prompt follows, or that concern other outputs than text.
        join: Function (encoder, decoder) that notes in the configuration of a half what it must know of the other.
    """

    prompt: Prompt = _no_prompt
    settings: tuple[str, ...] = ()
    join: Callable[[PreTrainedModel, PreTrainedModel], None] = _unchanged_halves


_encoders: dict[str, EncoderFamily] = {}
_decoders: dict[str, DecoderFamily] = {}
_natives: dict[str, NativeFamily] = {}
_NO_CROSS_ATTENTION = "it has no cross-attention: its decoder is a language model that reads audio among its tokens"
_SPEAKS = "it makes speech from text"
_REFUSED = {
    "big_bird": "it keeps no cache for cross-attention in transformers",
    "gpt_bigcode": "its cross-attention does not run in transformers: with multi_query it is not implemented, without "
    "it the split of keys and values has the wrong size",
    "megatron-bert": "its cross-attention is broken in transformers: the view of the keys uses the shape of the "
    "queries",
    "musicgen": "its tokens are audio codes in several books, not text",
    "musicgen_melody": "its tokens are audio codes in several books, not text",
    "pop2piano": "its tokens are notes of music, not text",
    **dict.fromkeys(("dia", "vibevoice"), _SPEAKS),
    **dict.fromkeys(("fun_asr_nano", "granite_speech", "granite_speech_plus"), _NO_CROSS_ATTENTION),
    **dict.fromkeys(("kyutai_speech_to_text", "qwen3_asr", "vibevoice_asr"), _NO_CROSS_ATTENTION),
    **dict.fromkeys(("voxtral", "voxtral_realtime"), _NO_CROSS_ATTENTION),
}
"""Families that cannot be exported, each with the reason."""


def register_encoder(family: EncoderFamily, *model_types: str) -> None:
    """Register `family` for encoders of `model_types`."""
    _encoders.update(dict.fromkeys(model_types, family))


def register_decoder(family: DecoderFamily, *model_types: str) -> None:
    """Register `family` for decoders of `model_types`."""
    _decoders.update(dict.fromkeys(model_types, family))


def register_native(family: NativeFamily, *model_types: str) -> None:
    """Register `family` for speech models of `model_types`, which have a decoder of their own."""
    _natives.update(dict.fromkeys(model_types, family))


def encoder_family(encoder: PreTrainedModel) -> EncoderFamily:
    """Return the family of `encoder`.

    Raises:
        ExportError: It cannot be exported; the error gives the reason.
    """
    check_not_refused(encoder.config)
    return _encoders.get(encoder.config.model_type, EncoderFamily())


def decoder_family(decoder: PreTrainedModel) -> DecoderFamily:
    """Return the family of `decoder`.

    Raises:
        ExportError: It cannot be exported; the error gives the reason.
    """
    check_not_refused(decoder.config)
    return _decoders.get(decoder.config.model_type, DecoderFamily())


def native_family(config: PretrainedConfig) -> NativeFamily:
    """Return the family of a speech model with a decoder of its own.

    Raises:
        ExportError: It cannot be exported; the error gives the reason.
    """
    check_not_refused(config)
    return _natives.get(config.model_type, NativeFamily())


def check_not_refused(config: PretrainedConfig) -> None:
    """Check that the family of `config` may be exported.

    Raises:
        ExportError: It is known not to work; the error gives the reason.
    """
    if config.model_type in _REFUSED:
        raise ExportError(
            f"{config.model_type} cannot be exported: {_REFUSED[config.model_type]}; speech-export --list-families "
            "names those that can"
        )


def encoder_types() -> tuple[str, ...]:
    """Return the model types of encoders of composites that have an entry."""
    return tuple(name for name, family in _encoders.items() if family.in_composites)


def growing_caches() -> dict[str, str]:
    """Return the reasons why decoders have a growing cache for every GPU, by model type."""
    return {name: family.why_not_tree for name, family in _decoders.items() if family.why_not_tree is not None}


def refusals() -> dict[str, str]:
    """Return the reasons why families cannot be exported, by model type."""
    return dict(_REFUSED)
