"""Whisper, whose encoder takes 30 seconds of audio, always, and whose decoder takes no mask for them.

transformers' own composite cannot call the decoder: `WhisperForCausalLM.forward` takes `encoder_outputs`. Whisper never
masks its cross-attention, since its own encoder pads all audio to 30 seconds; so it attends to the padding of a batch.
"""

import inspect
import logging
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

from torch import Tensor
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from speech_runtime.bundle.model_facts import EncoderFacts, PromptTemplate

from ..errors import ExportError
from .feature_encoders import every_frame
from .forward_keywords import Keywords, forward_keywords
from .registry import (
    DecoderFamily,
    EncoderFamily,
    NativeFamily,
    register_decoder,
    register_encoder,
    register_native,
)

logger = logging.getLogger(__name__)

_SETTINGS = (
    *("forced_decoder_ids", "is_multilingual", "lang_to_id", "language", "no_timestamps_token_id", "task"),
    *("task_to_id", "alignment_heads", "max_initial_timestamp_index", "prev_sot_token_id", "return_timestamps"),
)
_MULTILINGUAL_VOCABULARY = 51865
"""Size of the smallest vocabulary of a multilingual Whisper; that of an English one is smaller by a token."""
_LANGUAGE = re.compile(r"<\|(\w{2,3})\|>")
_TASKS = ("transcribe", "translate")


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


def features_first(_: PreTrainedModel, inputs: Tensor) -> Tensor:
    """Turn [batch, time, features] into [batch, features, time]."""
    return inputs.transpose(1, 2)


def whisper_prompt(
    settings: GenerationConfig, config: PretrainedConfig, tokenizer: Any | None, source: str
) -> PromptTemplate:
    """Return the prompt of a Whisper model: language, task and a token for text without timestamps.

    It is that of transformers' `WhisperGenerationMixin._retrieve_init_tokens`. A setting that a checkpoint lacks, such
    as one without generation_config.json, is read from its vocabulary.

    Raises:
        ExportError: `forced_decoder_ids` is not a prompt.
    """
    known: dict[str, Any] = {name: getattr(settings, name, None) for name in _SETTINGS}
    if known["is_multilingual"] is None:
        known["is_multilingual"] = bool(known["lang_to_id"]) or config.vocab_size >= _MULTILINGUAL_VOCABULARY
    vocabulary: Mapping[str, int] = tokenizer.get_vocab() if tokenizer is not None else {}
    missing = []
    if known["is_multilingual"] and not known["lang_to_id"]:
        codes = {token: match[1] for token in vocabulary if (match := _LANGUAGE.fullmatch(token))}
        known["lang_to_id"] = {token: vocabulary[token] for token in codes if codes[token] in TO_LANGUAGE_CODE.values()}
        missing.append("lang_to_id")
    if known["is_multilingual"] and not known["task_to_id"]:
        known["task_to_id"] = {task: vocabulary[f"<|{task}|>"] for task in _TASKS if f"<|{task}|>" in vocabulary}
        missing.append("task_to_id")
    if known["no_timestamps_token_id"] is None:
        known["no_timestamps_token_id"] = vocabulary.get("<|notimestamps|>")
        missing.append("no_timestamps_token_id")
    if missing:
        logger.warning(
            "The generation settings of %s have no %s; %s read from its vocabulary.",
            *(source, " and no ".join(missing), "it is" if len(missing) == 1 else "they are"),
        )
    without_timestamps = () if known["no_timestamps_token_id"] is None else (int(known["no_timestamps_token_id"]),)
    languages = _languages(known["lang_to_id"] or {}) if known["is_multilingual"] else {}
    tasks = (known["task_to_id"] or {}) if known["is_multilingual"] else {}
    legacy = _legacy(known["forced_decoder_ids"] or getattr(config, "forced_decoder_ids", None) or [], source)
    if languages and not legacy:
        legacy = ("language",)
    by_default = legacy if languages else tuple(known for known in legacy if known != "language")
    if by_default[-1:] != without_timestamps:
        by_default += without_timestamps
    return PromptTemplate(
        tokens=("language", "task", *without_timestamps),
        by_default=by_default,
        languages=languages,
        tasks=tasks,
        language=None if known["language"] is None else _name(languages, known["language"]),
        task=known["task"],
        task_of_language="transcribe" if "transcribe" in tasks else None,
    )


def _languages(tokens: Mapping[str, int]) -> dict[str, int]:
    """Return the token of each language by itself, by its code and by its names in English."""
    codes = {token.strip("<|>"): number for token, number in tokens.items()}
    names = {name: codes[code] for name, code in TO_LANGUAGE_CODE.items() if code in codes}
    return {**names, **codes, **tokens}


def _name(languages: Mapping[str, int], stored: str) -> str:
    return stored if stored in languages else stored.lower()


def _legacy(forced: list[tuple[int, int | None]], source: str) -> tuple[int | Literal["language"], ...]:
    """Return the prompt of `forced_decoder_ids`, pairs of a position and a token; None is a language to detect."""
    if [position for position, _ in forced] != list(range(1, len(forced) + 1)):
        raise ExportError(
            f"{source}: forced_decoder_ids is {forced}, and a prompt of Whisper has a token for each position from 1 "
            "on; correct it in generation_config.json, or take it out"
        )
    return tuple("language" if token is None else token for _, token in forced)


def renamed_input(decoder: PreTrainedModel) -> AbstractContextManager[None]:
    """Within this context, the decoder takes `encoder_hidden_states` and ignores `encoder_attention_mask`."""
    alone = "encoder_outputs" in inspect.signature(decoder.forward).parameters  # WhisperForCausalLM

    def rename(keywords: Keywords) -> Keywords:
        keywords = {name: value for name, value in keywords.items() if name != "encoder_attention_mask"}
        if alone:
            keywords["encoder_outputs"] = keywords.pop("encoder_hidden_states")
        return keywords

    return forward_keywords(decoder, rename)


register_encoder(
    EncoderFamily(facts=whisper_facts, frame_mask=every_frame, takes_mask=False, arrange=features_first), "whisper"
)
register_decoder(DecoderFamily(adapt=renamed_input, masks_audio=False), "whisper")
register_native(NativeFamily(prompt=whisper_prompt, settings=_SETTINGS), "whisper")
