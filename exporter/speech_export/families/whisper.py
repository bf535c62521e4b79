"""Whisper, whose encoder takes 30 seconds of audio, always, and whose decoder takes no mask for them.

transformers' own composite cannot call the decoder: `WhisperForCausalLM.forward` takes `encoder_outputs`. Whisper never
masks its cross-attention, since its own encoder pads all audio to 30 seconds; so it attends to the padding of a batch.
"""

import inspect
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from speech_runtime.bundle.model_facts import EncoderFacts, PromptTemplate

from ..errors import ExportError
from .feature_encoders import every_frame
from .forward_keywords import Keywords, forward_keywords
from .prompt_tokens import Place, language_tokens, vocabulary_of
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
    languages, tasks, no_timestamps = _special_tokens(settings, config, tokenizer, source)
    last = () if no_timestamps is None else (no_timestamps,)
    legacy = _legacy(settings, config, source) or ("language",)
    by_default = legacy if languages else tuple(token for token in legacy if isinstance(token, int))
    if by_default[-1:] != last:
        by_default += last
    language = getattr(settings, "language", None)
    return PromptTemplate(
        tokens=("language", "task", *last),
        by_default=by_default,
        languages=_named(languages),
        tasks=tasks,
        language=language if language is None or language in languages else language.lower(),
        task=getattr(settings, "task", None),
        task_of_language="transcribe" if "transcribe" in tasks else None,
    )


def _special_tokens(
    settings: GenerationConfig, config: PretrainedConfig, tokenizer: Any | None, source: str
) -> tuple[dict[str, int], dict[str, int], int | None]:
    """Return the tokens of languages and of tasks, which an English model has none of, and that for no timestamps.

    What the settings lack is read from the vocabulary, with a warning.
    """
    vocabulary, missing = vocabulary_of(tokenizer), []

    def stored_or(name: str, in_vocabulary: Any) -> Any:
        stored = getattr(settings, name, None)
        if stored not in (None, {}):
            return stored
        missing.append(name)
        return in_vocabulary

    is_multilingual = getattr(settings, "is_multilingual", None)
    if is_multilingual is None:
        is_multilingual = bool(getattr(settings, "lang_to_id", None)) or config.vocab_size >= _MULTILINGUAL_VOCABULARY
    languages, tasks = dict[str, int](), dict[str, int]()
    if is_multilingual:
        codes = language_tokens(vocabulary, set(TO_LANGUAGE_CODE.values()))
        languages = stored_or("lang_to_id", {f"<|{code}|>": token for code, token in codes.items()})
        tasks = stored_or(
            "task_to_id", {task: vocabulary[f"<|{task}|>"] for task in _TASKS if f"<|{task}|>" in vocabulary}
        )
    no_timestamps = stored_or("no_timestamps_token_id", vocabulary.get("<|notimestamps|>"))
    if missing:
        logger.warning(
            "The generation settings of %s have no %s; %s read from its vocabulary.",
            *(source, " and no ".join(missing), "it is" if len(missing) == 1 else "they are"),
        )
    return languages, tasks, no_timestamps


def _named(tokens: Mapping[str, int]) -> dict[str, int]:
    """Return the token of each language by itself, by its code and by its names in English."""
    codes = {token.strip("<|>"): number for token, number in tokens.items()}
    names = {name: codes[code] for name, code in TO_LANGUAGE_CODE.items() if code in codes}
    return {**names, **codes, **tokens}


def _legacy(settings: GenerationConfig, config: PretrainedConfig, source: str) -> tuple[Place, ...]:
    """Return the prompt of `forced_decoder_ids`, pairs of a position and a token; None is a language to detect."""
    forced = getattr(settings, "forced_decoder_ids", None) or getattr(config, "forced_decoder_ids", None) or []
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
