"""Options of a call of `generate` besides its settings: functions of the caller, streaming, cancelling, outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataclass_json import shown
from ..errors import GenerationError
from .config import GenerationSettings
from .search.stopping import StoppingCriterion
from .streaming import Streamer
from .token_scores.maths import LogitsProcessor, Scores, Sequences
from .transformers_arguments import GenerationConfigLike


@dataclass(frozen=True)
class CallOptions:
    """Options of a call of `generate` besides its settings.

    Attributes:
        logits_processor: Functions that take sequences int64 [1, beams, length] and scores float32 [1, beams,
            vocabulary] of an utterance and return scores. They come after the processors of the settings and before
            sampling.
        stopping_criteria: Functions that take sequences int64 [beams, length] of an utterance and return which of them
            end: bool [beams].
        generator: Source of random numbers for sampling; None for a new one.
        stream: Function that takes the text of the only utterance in whole words, as soon as it is decided.
        streamer: Streamer of transformers, or an object of your own with `put` and `end`: it takes the prompt, int64
            [1, tokens], then each new token of the only utterance, int64 [1], as numpy arrays.
        cancel: Event that ends the search after its present step; any thread may set it.
        output_scores: If true, return the processed scores of every step.
        output_logits: If true, return the logits of every step.
        return_dict_in_generate: If true, return a `GenerateOutput` instead of the sequences alone.
    """

    logits_processor: Sequence[LogitsProcessor] = ()
    stopping_criteria: Sequence[StoppingCriterion] = ()
    generator: np.random.Generator | None = None
    stream: Callable[[str], object] | None = None
    streamer: Streamer | None = None
    cancel: Event | None = None
    output_scores: bool = False
    output_logits: bool = False
    return_dict_in_generate: bool = False

    def __post_init__(self) -> None:
        """Refuse values of the wrong type."""
        problems = [
            f"{name} is {shown(value)}, it must be {words}"
            for name, (fits, words) in _TYPES.items()
            if (value := getattr(self, name)) is not None and not fits(value)
        ]
        if problems:
            raise GenerationError("; ".join(problems))

    @classmethod
    def split(cls, keywords: Mapping[str, Any]) -> tuple["CallOptions", dict[str, Any]]:
        """Return the options among the keywords of a call, and its settings.

        Raises:
            GenerationError: An option is of the wrong type.
        """
        options = {name: value for name, value in keywords.items() if name in OPTION_NAMES and value is not None}
        return cls(**options), {name: value for name, value in keywords.items() if name not in OPTION_NAMES}

    def checked_processors(self) -> tuple[LogitsProcessor, ...]:
        """Return `logits_processor` with a check that each returns floating-point values of the scores' shape."""
        return tuple(_checked_processor(function, i) for i, function in enumerate(self.logits_processor))

    def checked_criteria(self) -> tuple[StoppingCriterion, ...]:
        """Return `stopping_criteria` with a check that each returns one boolean per sequence."""
        return tuple(_checked_criterion(function, i) for i, function in enumerate(self.stopping_criteria))


OPTION_NAMES = frozenset(field.name for field in fields(CallOptions))


class SearchKeywords(GenerationSettings, total=False):
    """Keywords of `generate`: settings (see `GenerationConfig`) and options (see `CallOptions`)."""

    generation_config: GenerationConfigLike | None
    logits_processor: Sequence[LogitsProcessor]
    stopping_criteria: Sequence[StoppingCriterion]
    generator: np.random.Generator | None
    stream: Callable[[str], object] | None
    streamer: Streamer | None
    cancel: Event | None
    output_scores: bool
    output_logits: bool


def _are_functions(value: object) -> bool:
    return isinstance(value, Sequence) and all(map(callable, value))


_FLAG: tuple[Callable[[Any], bool], str] = (lambda value: isinstance(value, bool | np.bool_), "True or False")

_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "logits_processor": (_are_functions, "a list of functions of sequences and scores"),
    "stopping_criteria": (_are_functions, "a list of functions of sequences"),
    "generator": (
        lambda value: isinstance(value, np.random.Generator),
        "a numpy.random.Generator, as numpy.random.default_rng(seed) makes it",
    ),
    "stream": (callable, "a function that takes text, such as print"),
    "streamer": (
        lambda value: callable(getattr(value, "put", None)) and callable(getattr(value, "end", None)),
        "an object with the methods put and end, such as transformers' TextStreamer",
    ),
    "cancel": (lambda value: callable(getattr(value, "is_set", None)), "a threading.Event"),
    "output_scores": _FLAG,
    "output_logits": _FLAG,
    "return_dict_in_generate": _FLAG,
}
"""Check of each option's type, and the words for it."""


def _checked_processor(function: LogitsProcessor, position: int) -> LogitsProcessor:
    def apply(sequences: Sequences, scores: Scores) -> Scores:
        shape = scores.shape  # read first: the function may write into the scores
        found = _returned(function, f"logits_processor[{position}]", "floating-point", "f", shape, sequences, scores)
        with np.errstate(over="ignore"):  # values too large for float32 become infinite
            return found.astype(np.float32, copy=False)

    return apply


def _checked_criterion(function: StoppingCriterion, position: int) -> StoppingCriterion:
    def ended(sequences: Sequences) -> NDArray[np.bool_]:
        return _returned(function, f"stopping_criteria[{position}]", "boolean", "b", sequences.shape[:1], sequences)

    return ended


def _returned(
    function: Callable[..., Any],
    name: str,
    words: str,
    kind: str,
    shape: tuple[int, ...],
    sequences: Sequences,
    *scores: Scores,
) -> NDArray[Any]:
    """Call a function with a copy of the sequences, which it may write into, and check the array that it returns.

    Nothing is broadcast or cast silently.

    Raises:
        GenerationError: The function, which is named, did not return an array of this shape and kind of dtype.
    """
    returned = function(sequences.copy(), *scores)
    called = f"{name} ({getattr(function, '__qualname__', type(function).__name__)})"
    expected = f"it must return {words} values {list(shape)}"
    try:
        found = np.asarray(returned)
    except Exception as error:  # lists of unequal lengths, or whatever an object's own conversion raises
        raise GenerationError(
            f"{called} returned a {type(returned).__name__} that is not an array; {expected}"
        ) from error
    if found.dtype.kind != kind or found.shape != shape:
        described = "None" if returned is None else f"{found.dtype} {list(found.shape)}"
        raise GenerationError(f"{called} returned {described}; {expected}")
    return found
