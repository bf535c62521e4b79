"""Find the facts about a model for the manifest, from its configuration or by running it once."""

import sys
from dataclasses import replace
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, SpeechEncoderDecoderModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from speech_runtime.bundle.model_facts import DecoderFacts, EncoderFacts

from ..errors import ExportError, reason
from ..families import EncoderFamily, decoder_family, encoder_family
from ..precision.options import Target

FRAME_MASK = "_get_feature_vector_attention_mask"
"""Method of an encoder that a composite of transformers calls for the mask of its frames."""

_FRAMES = 3
_LENGTHS = 9
_NEAR, _FAR = 24, 24 + 120
_ROUNDING = 1e-4
_LEAST_STATIC = 2


def encoder_facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of the speech encoder.

    Raises:
        ExportError: Its family cannot be exported, or its configuration lacks a fact.
    """
    family = encoder_family(encoder)
    name = encoder.config.model_type
    if getattr(encoder.config, "num_hidden_layers", 1) < 1:
        raise ExportError(
            f"the encoder, {name}, has no layers: num_hidden_layers is {encoder.config.num_hidden_layers}"
        )
    if family.takes_mask and not hasattr(encoder, FRAME_MASK):
        raise ExportError(
            f"{name} cannot be the encoder of a SpeechEncoderDecoderModel: transformers cannot downsample "
            "an attention mask for it"
        )
    try:
        facts = (family.facts or _waveform_facts)(encoder)
        neutral = not family.takes_mask or _padding_is_neutral(encoder, facts)
        stride, extra = _output_frames(encoder, facts, family)
    except ExportError:
        raise
    except Exception as error:  # an inconsistent configuration can fail anywhere
        raise ExportError(f"{name} cannot be exported, it does not run as an encoder: {reason(error)}") from error
    return replace(facts, padding_neutral=neutral, frame_stride=stride, extra_frames=extra)


def decoder_facts(
    model: SpeechEncoderDecoderModel, top_k: int, static_cache: int | None = None, *, shared: bool = False
) -> DecoderFacts:
    """Return the facts of the text decoder of `model`.

    Args:
        model: Composite.
        top_k: Maximum number of candidates of a step; the vocabulary may be smaller.
        static_cache: Length of a static cache in tokens, with which a step takes one token; None for another one.
        shared: If true, the beams of an utterance share a cache ("tree") where the family can; else it grows.

    Raises:
        ExportError: Its family cannot be exported, or not with such a cache, or it cannot attend to an encoder.
    """
    family = decoder_family(model.decoder)
    logits, caches = _one_step(model)
    own, cross = ([layer.keys for layer in cache.layers if layer.keys is not None] for cache in caches)
    name = model.decoder.config.model_type
    if not own:
        raise ExportError(f"the decoder, {name}, has no layers: its configuration sets none")
    if not cross:
        raise ExportError(f"{name} has no cross-attention: as a decoder it would ignore the audio")
    if {(*key.shape[:2], key.shape[3]) for key in own} != {(*key.shape[:2], key.shape[3]) for key in cross}:
        raise ExportError(f"{name} cannot be exported: its layers have caches of different shapes")
    if bool(logits.isnan().any()):
        raise ExportError(
            f"the decoder, {name}, computes NaN; look at layer_norm_eps and the like in its configuration"
        )
    vocab_size = int(logits.shape[-1])
    facts = DecoderFacts(
        layers=len(own),
        heads=int(own[0].shape[1]),
        head_dim=int(own[0].shape[3]),
        vocab_size=vocab_size,
        max_positions=(family.max_positions or _max_positions)(model.decoder),
        max_tokens=family.max_tokens,
        top_k=min(top_k, vocab_size),
        masks_audio=family.masks_audio,
    )
    if static_cache is None:
        return replace(facts, cache="tree") if shared and family.why_not_tree is None else facts
    if family.why_not_static is not None:
        raise ExportError(f"{name} cannot have a static cache: {family.why_not_static}; leave --static-cache out")
    if facts.max_positions is not None and static_cache > facts.max_positions:
        raise ExportError(
            f"the static cache has {static_cache:,} tokens, and the decoder has {facts.max_positions:,} "
            f"positions; set --static-cache to {facts.max_positions} or less"
        )
    return replace(facts, cache="static", cache_length=static_cache, max_tokens=1)


def check_cache(static: int | None, target: Target, *, growing: bool) -> None:
    """Check that a static cache of `static` tokens, or one that grows on request, is possible for `target`.

    Raises:
        ExportError: It is not.
    """
    if growing and target != "cuda":
        raise ExportError(
            f"--growing-cache is for --target cuda, whose cache has another form by default; for {target} leave it out"
        )
    if static is None:
        return
    if growing:
        raise ExportError("a cache cannot be static and grow; leave out --static-cache or --growing-cache")
    if static < _LEAST_STATIC:
        raise ExportError(
            f"the static cache has {static} tokens; a search needs at least {_LEAST_STATIC}, the start token and one "
            "more: set --static-cache to the length of the longest sequence you expect"
        )
    if target == "cpu":
        raise ExportError(
            "a static cache is for TensorRT, where its steps can be recorded as CUDA graphs; on the CPU a step writes "
            "into its cache in place, which is faster: leave --static-cache out, or give --target tensorrt"
        )
    if target == "cuda":
        raise ExportError(
            "a static cache is for TensorRT; for CUDA the steps can be recorded as they are, and the cache gets more "
            "room when it is full: leave --static-cache out, or give --target tensorrt"
        )


def encoder_width(model: SpeechEncoderDecoderModel) -> int:
    """Return the width of `encoder_hidden_states`, after the projection if there is one."""
    projection: nn.Linear | None = getattr(model, "enc_to_dec_proj", None)
    return int(model.encoder_output_dim if projection is None else projection.out_features)


def _waveform_facts(encoder: PreTrainedModel) -> EncoderFacts:
    """Return the facts of an encoder that begins with convolutions over the samples."""
    config = encoder.config
    kernels, strides = _fact(config, "conv_kernel"), _fact(config, "conv_stride")
    jumps = [1, *accumulate(strides, mul)]
    receptive_field = 1 + sum((kernel - 1) * jump for kernel, jump in zip(kernels, jumps, strict=False))
    squeeze = int(getattr(config, "squeeze_factor", 1))
    relative = getattr(config, "position_embeddings_type", None) == "relative"
    # SpeechT5 has a table of positions, which transformers lets grow with the audio; that of a graph is fixed.
    positions = config.max_source_positions if relative else getattr(config, "max_speech_positions", None)
    return EncoderFacts(
        input_name=encoder.main_input_name,
        feature_size=None,
        heads=int(_fact(config, "num_attention_heads")),
        min_length=receptive_field + (squeeze - 1) * prod(strides),
        max_length=None if positions is None else receptive_field + (positions - 1) * prod(strides),
        stride=prod(strides) * squeeze,
    )


def _padding_is_neutral(encoder: PreTrainedModel, facts: EncoderFacts) -> bool:
    """Return true if a clip is encoded the same alone and padded; if not, some layers see the padding.

    Adapters have strides too, so lengths of several frames are tried.
    """
    most = facts.max_length or sys.maxsize
    counts = (*range(_LENGTHS), 3 * _LENGTHS)
    lengths = torch.tensor([min(facts.min_length + frames * facts.stride, most) for frames in counts])
    longest = int(lengths[-1])
    width = () if facts.feature_size is None else (facts.feature_size,)
    inputs = torch.randn((len(lengths), longest, *width), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(longest) < lengths.unsqueeze(1)).to(torch.int64)
    inputs[mask == 0] = 0
    with torch.no_grad():
        together = encoder(inputs, attention_mask=mask)[0]
        frames = encoder._get_feature_vector_attention_mask(together.shape[1], mask).sum(-1)
        for row, length in enumerate(lengths[:-1]):
            alone = encoder(inputs[row : row + 1, :length], attention_mask=mask[row : row + 1, :length])[0][0]
            valid = min(int(frames[row]), len(alone))
            difference = (together[row, :valid] - alone[:valid]).abs().max()
            if difference > _ROUNDING * alone.abs().max():
                return False
    return True


def _output_frames(encoder: PreTrainedModel, facts: EncoderFacts, family: EncoderFamily) -> tuple[int, int]:
    """Return `frame_stride` and `extra_frames`; they are measured, since adapters have strides of their own."""
    most = facts.max_length or sys.maxsize
    lengths = [min(facts.min_length + frames * facts.stride, most) for frames in (0, _NEAR, _FAR)]
    counts = []
    for length in lengths:
        width = () if facts.feature_size is None else (facts.feature_size,)
        inputs, mask = torch.zeros((1, length, *width)), torch.ones(1, length, dtype=torch.int64)
        with torch.no_grad():
            arranged = family.arrange(encoder, inputs)
            hidden_states = encoder(arranged, attention_mask=mask if family.takes_mask else None)[0]
        if bool(hidden_states.isnan().any()):
            name = encoder.config.model_type
            raise ExportError(
                f"the encoder, {name}, computes NaN; look at layer_norm_eps and the like in its configuration"
            )
        counts.append(int(hidden_states.shape[1]))
    risen, frames = lengths[2] - lengths[1], counts[2] - counts[1]
    stride = lengths[2]
    if frames:  # where it does not divide evenly, another frame may have been about to begin
        stride = risen // (frames + (risen % frames != 0))
    extra = max(count - length // stride for count, length in zip(counts, lengths, strict=True))
    # Lengths in between may have one more. A wide receptive field makes the number negative; 0 is a bound as well.
    return stride, max(extra + 1, 0)


def _one_step(model: SpeechEncoderDecoderModel) -> tuple[torch.Tensor, tuple[DynamicCache, DynamicCache]]:
    """Decode one token; return its logits and the decoder's self-attention and cross-attention cache."""
    decoder = model.decoder
    own, cross = DynamicCache(), DynamicCache()
    try:
        with decoder_family(decoder).adapt(decoder), torch.no_grad():
            logits = decoder(
                input_ids=torch.zeros(1, 1, dtype=torch.int64),
                encoder_hidden_states=torch.zeros(1, _FRAMES, encoder_width(model)),
                encoder_attention_mask=torch.ones(1, _FRAMES, dtype=torch.int64),
                past_key_values=EncoderDecoderCache(own, cross),
                use_cache=True,
            ).logits
    except Exception as error:  # a decoder that does not fit a composite can fail anywhere
        raise ExportError(
            f"{decoder.config.model_type} cannot be exported, it does not run as a decoder: {reason(error)}"
        ) from error
    return logits, (own, cross)


def _max_positions(decoder: PreTrainedModel) -> int | None:
    """Return the maximum length of a sequence. RoBERTa and its relatives number positions from `padding_idx` + 1."""
    positions = getattr(decoder.config, "max_target_positions", None) or getattr(
        decoder.config, "max_position_embeddings", None
    )
    for name, module in decoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return int(module.num_embeddings) - int(module.padding_idx) - 1
    return None if positions is None else int(positions)


def _fact(config: PretrainedConfig, *names: str) -> Any:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return value
    raise ExportError(f"{config.model_type} cannot be exported yet: its configuration has no {' or '.join(names)}")
