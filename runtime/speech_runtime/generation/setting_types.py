"""Types of generation settings with their allowed values, and settings of transformers that are refused or ignored."""

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from itertools import chain
from math import inf
from typing import Annotated, Any, get_args, get_type_hints

from ..bundle.vocabulary import Vocabulary
from ..dataclass_json import Rule, between
from ..errors import GenerationError

MOST_TOKENS = 2**17
"""Longest sequence, several hours of speech: a search allocates buffers of this length before it starts."""

_SMALLEST, _LARGEST = 1e-30, 1e30
"""Scores of a model stay finite in float32 when they are multiplied or divided by factors in this range."""

_IN_VOCABULARY = "a token to start with, to force or to end at: the decoder's vocabulary must have it"

TokenId = Annotated[int, _IN_VOCABULARY]
# Each beam and each sample is a row of every tensor of a step.
Beams = Annotated[int, between(1, 1024)]
Samples = Annotated[int, between(1, 2**16)]
Length = Annotated[int, between(1, MOST_TOKENS)]
LengthOrZero = Annotated[int, between(0, MOST_TOKENS)]
Candidates = Annotated[int, between(0, 2**31 - 1)]
Exponent = Annotated[float, between(-100, 100)]
Factor = Annotated[float, between(_SMALLEST, _LARGEST)]
Seconds = Annotated[float, between(0, 1e9)]
Share = Annotated[float, between(0, 1)]
Probability = Annotated[float, Rule(lambda value: 0 < value <= 1, "a number above 0 and at most 1")]
Cutoff = Annotated[float, Rule(lambda value: 0 <= value < 1, "at least 0 and below 1")]
Decay = Annotated[
    tuple[int, float],
    Rule(
        lambda value: 0 <= value[0] <= MOST_TOKENS and 0 < value[1] <= _LARGEST,
        f"[START, FACTOR] with a START of 0 to {MOST_TOKENS:,}, and a FACTOR above 0 and at most {_LARGEST:,}",
    ),
]
Biases = Annotated[
    tuple[tuple[tuple[TokenId, ...], float], ...],
    # A bias of -inf bans a sequence, as bad_words_ids does.
    Rule(lambda pairs: all(-inf <= bias <= _LARGEST for _, bias in pairs), f"sequences with biases up to {_LARGEST:,}"),
]


_NEVER_SAID = frozenset({"bad_words_ids", "sequence_bias", "pad_token_id"})
"""Settings that may have tokens that a bundle leaves out: they ban them, or change a probability of 0."""


def vocabulary_problems(config: Any, vocabulary: Vocabulary) -> list[str]:
    """List the settings with token ids that the decoder does not have, or that it should say and the bundle leaves out.

    Suppressing a token that does not exist changes nothing, and is allowed: such settings have no type `TokenId`.
    """
    given = {name: getattr(config, name) for name in _names_of_token_ids(config.__class__)}
    if config.decoder_start_token_id is not None:
        del given["bos_token_id"]  # never used
    given["sequence_bias"] = tuple(sequence for sequence, _ in config.sequence_bias or ())
    unknown = {name: vocabulary.unknown(_ids(value)) for name, value in given.items()}
    left_out = {name: vocabulary.why_left_out(_ids(given[name])) for name in given if name not in _NEVER_SAID}
    return [
        *(
            f"{name} has {', '.join(map(str, tokens))}, but the decoder's tokens are 0 … {vocabulary.size - 1}; "
            "choose one of these, or leave the setting out"
            for name, tokens in unknown.items()
            if tokens
        ),
        *(f"{name} has {why}" for name, why in left_out.items() if why is not None),
    ]


@cache
def _names_of_token_ids(record: type) -> list[str]:
    return [name for name, kind in get_type_hints(record, include_extras=True).items() if _has_token_ids(kind)]


def _has_token_ids(kind: Any) -> bool:
    arguments = get_args(kind)
    return _IN_VOCABULARY in arguments or any(map(_has_token_ids, arguments))


def _ids(value: Any) -> Iterator[int]:
    """Yield all token ids in None, a token id, or nested tuples of token ids."""
    if value is None:
        return iter(())
    return iter((value,)) if isinstance(value, int) else chain.from_iterable(map(_ids, value))


_UNSUPPORTED: dict[str, tuple[str, object]] = {
    "assistant_early_exit": ("assisted generation", None),
    "constraints": ("constrained beam search", None),
    "diversity_penalty": ("group beam search", 0.0),
    "dola_layers": ("DoLa decoding", None),
    "force_words_ids": ("constrained beam search", None),
    "guidance_scale": ("classifier-free guidance", 1.0),
    "low_memory": ("sequential beam search", False),
    "num_beam_groups": ("group beam search", 1),
    "penalty_alpha": ("contrastive search", 0.0),
    "prompt_lookup_num_tokens": ("assisted generation", None),
    "token_healing": ("prompts that end within a word", False),
    "watermarking_config": ("watermarking", None),
}
"""Settings of transformers that this runtime does not support: their purpose, and the value that changes nothing."""

_WITHOUT_EFFECT = frozenset(
    {
        *("use_cache", "cache_implementation", "cache_config", "compile_config", "disable_compile"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
        *("encoder_repetition_penalty", "encoder_no_repeat_ngram_size"),  # for encoders whose input is text
        *("transformers_version", "_from_model_config"),
        *("assistant_confidence_threshold", "assistant_ensemble_weight", "assistant_lookbehind", "is_assistant"),
        *("max_matching_ngram_size", "num_assistant_tokens", "num_assistant_tokens_schedule", "speculation_type"),
        *("target_lookbehind", "use_mtp", "continuous_batching_config", "max_cache_len", "prefill_chunk_size"),
    }
)
"""Settings of transformers that cannot change the token ids of the searches of this runtime."""

_MINUS_ONE_IS_NONE = frozenset({"eos_token_id", "pad_token_id"})
"""Token ids that some checkpoints write as -1 for "none". In transformers, too, no token equals -1."""


def plain_values(settings: Mapping[str, Any], may_be_none: Collection[str]) -> dict[str, Any]:
    """Return settings as plain Python values, without those that are None and have no such value.

    Numbers and arrays of numpy and torch are converted. As in transformers, None leaves a setting as it is.
    """
    return {name: _plain(value) for name, value in settings.items() if value is not None or name in may_be_none}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
    return value.tolist() if callable(getattr(value, "tolist", None)) else value


def supported_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that this runtime supports, without those of transformers that change nothing here.

    Raises:
        GenerationError: A setting asks for a search that this runtime does not support.
    """
    bias = given.get("sequence_bias")
    if isinstance(bias, Mapping):  # transformers takes a dictionary or a list, and saves a list
        given = {**given, "sequence_bias": list(bias.items())}
    given = {
        name: None if name in _MINUS_ONE_IS_NONE and _equals(value, -1) else value for name, value in given.items()
    }
    unsupported = [
        f"{name} is for {purpose}, which this runtime does not support; leave it out"
        for name, (purpose, neutral) in _UNSUPPORTED.items()
        if name in given and given[name] is not None and not _equals(given[name], neutral)
    ]
    if unsupported:
        raise GenerationError("; ".join(unsupported))
    return {name: value for name, value in given.items() if name not in _WITHOUT_EFFECT and name not in _UNSUPPORTED}


def _equals(value: Any, constant: object) -> bool:
    """Compare any value with a number or None. An array, which compares item by item, equals neither."""
    return not getattr(value, "ndim", 0) and bool(value == constant)
