"""The ranges of generation settings: every number is finite and bounded, every token id is in the vocabulary."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from math import inf
from typing import Any

MOST_BEAMS = 1024
"""The ceiling of beams. Each is a row of every tensor of a step."""

MOST_SAMPLES = 2**16
"""The ceiling of sequences that are returned for an utterance; samples are rows likewise."""

MOST_TOKENS = 2**17
"""The ceiling of a sequence's length, several hours of speech: buffers of that length are made before a search."""

_SMALLEST, _LARGEST = 1e-30, 1e30
"""Scores of a model stay finite in float32 when they are multiplied or divided by factors in this range."""

_Range = tuple[Callable[[Any], bool], str]


def _between(least: float, most: float) -> _Range:
    return (lambda value: least <= value <= most, f"at least {least:,} and at most {most:,}")


_LENGTH = _between(0, MOST_TOKENS)
_FACTOR = _between(_SMALLEST, _LARGEST)
_PROBABILITY: _Range = (lambda value: 0 < value <= 1, "above 0 and at most 1")
_SHARE: _Range = (lambda value: 0 <= value < 1, "at least 0 and below 1")
_DECAY: _Range = (
    lambda value: 0 <= value[0] <= MOST_TOKENS and 0 < value[1] <= _LARGEST,
    f"a START of at least 0 and at most {MOST_TOKENS:,}, and a FACTOR above 0 and at most {_LARGEST:,}",
)

_RANGES: dict[str, _Range] = {
    "num_beams": _between(1, MOST_BEAMS),
    "num_return_sequences": _between(1, MOST_SAMPLES),
    **dict.fromkeys(("max_new_tokens", "max_length"), _between(1, MOST_TOKENS)),
    **dict.fromkeys(("min_new_tokens", "min_length", "no_repeat_ngram_size"), _LENGTH),
    **dict.fromkeys(("repetition_penalty", "temperature"), _FACTOR),
    **dict.fromkeys(("top_p", "typical_p", "top_h"), _PROBABILITY),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff"), _SHARE),
    "top_k": _between(0, 2**31 - 1),
    "length_penalty": _between(-100, 100),
    "min_p": _between(0, 1),
    "max_time": _between(0, 1e9),
    "exponential_decay_length_penalty": _DECAY,
    # A bias of -inf bans a sequence, as bad_words_ids does.
    "sequence_bias": (lambda pairs: all(-inf <= bias <= _LARGEST for _, bias in pairs), f"at most {_LARGEST:,}"),
}

_TOKENS = ("eos_token_id", "pad_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids")
"""Settings of token ids that are fed, forced or waited for. To suppress a token that there is not changes nothing."""


def range_problems(settings: Mapping[str, Any]) -> list[str]:
    """List the settings whose value is out of its range; what is not set is None."""
    return [
        f"{name} is {value}, it must be {words}"
        for name, (fits, words) in _RANGES.items()
        if (value := settings[name]) is not None and not fits(value)
    ]


def vocabulary_problems(settings: Mapping[str, Any], vocab_size: int) -> list[str]:
    """List the settings with token ids that a decoder of `vocab_size` tokens does not have."""
    start = "bos_token_id" if settings["decoder_start_token_id"] is None else "decoder_start_token_id"
    given = {name: settings[name] for name in (start, *_TOKENS)}
    given["sequence_bias"] = tuple(sequence for sequence, _ in settings["sequence_bias"] or ())
    outside = {
        name: sorted({token for token in _ids(value) if not 0 <= token < vocab_size}) for name, value in given.items()
    }
    return [
        f"{name} has {', '.join(map(str, tokens))}, but the decoder's tokens are 0 … {vocab_size - 1}; "
        "choose one of these, or leave the setting out"
        for name, tokens in outside.items()
        if tokens
    ]


def _ids(value: Any) -> Iterator[int]:
    """All token ids in a value: None, one of them, or tuples of them."""
    if value is None:
        return iter(())
    return iter((value,)) if isinstance(value, int) else chain.from_iterable(map(_ids, value))
