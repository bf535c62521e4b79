"""A caller's functions: what they answer is checked, so that nothing is broadcast, cast or overwritten in silence."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GenerationError
from ..search.state import Tokens
from ..search.stopping import StoppingCriterion
from .maths import Processor, Scores, Sequences


def checked_processor(function: Processor, position: int) -> Processor:
    """The function at a position of `logits_processor`; its answer must be floating-point, of the scores' shape."""

    def apply(sequences: Sequences, scores: Scores) -> Scores:
        shape = scores.shape  # before the function, which may write into the scores
        found = _answer(function, f"logits_processor[{position}]", "floating-point", "f", shape, sequences, scores)
        with np.errstate(over="ignore"):  # beyond float32 is as good as infinite
            return found.astype(np.float32, copy=False)

    return apply


def checked_criterion(function: StoppingCriterion, position: int) -> StoppingCriterion:
    """The function at a position of `stopping_criteria`; its answer must be booleans, one for each sequence."""

    def ended(sequences: Tokens) -> NDArray[np.bool_]:
        return _answer(function, f"stopping_criteria[{position}]", "boolean", "b", sequences.shape[:1], sequences)

    return ended


def _answer(
    function: Callable[..., Any],
    name: str,
    words: str,
    kind: str,
    shape: tuple[int, ...],
    sequences: Tokens,
    *scores: Scores,
) -> NDArray[Any]:
    """What a function says of a copy of the sequences: it may write into that.

    Raises:
        GenerationError: an array of another shape or dtype kind, or none; names the function.
    """
    answer = function(sequences.copy(), *scores)
    called = f"{name} ({getattr(function, '__qualname__', type(function).__name__)})"
    expected = f"it must return {words} values {list(shape)}"
    try:
        found = np.asarray(answer)
    except Exception as error:  # of lists of unequal lengths, or of whatever an object's own conversion raises
        raise GenerationError(f"{called} returned a {type(answer).__name__} that is no array; {expected}") from error
    if found.dtype.kind != kind or found.shape != shape:
        described = "None" if answer is None else f"{found.dtype} {list(found.shape)}"
        raise GenerationError(f"{called} returned {described}; {expected}")
    return found
