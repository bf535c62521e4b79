"""Beginning of every sequence: the start token, and the caller's prompt if there is one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle.vocabulary import Vocabulary
from ..errors import GenerationError
from .search.base import Tokens

Prompts = ArrayLike | Sequence[Sequence[int]]
"""Token ids [batch, tokens]; or a list for each utterance, of any length."""


@dataclass(frozen=True)
class Prompt:
    """Prompts of the same length.

    Attributes:
        utterances: Utterances that the prompts belong to, int64 [utterances].
        tokens: Token ids int64 [utterances, length], the start token included.
    """

    utterances: NDArray[np.int64]
    tokens: Tokens


def prompts(given: Prompts | None, start: Sequence[int], vocabulary: Vocabulary) -> list[Prompt]:
    """Group prompts by length: a search takes prompts of one length.

    Args:
        given: The caller's prompts; None for the start tokens alone. The start token is put in front where it is
            missing. As in transformers, an array lacks it only if all rows do; rows of different lengths are checked
            one by one.
        start: Start token of each utterance.
        vocabulary: Vocabulary of the decoder.

    Raises:
        GenerationError: The number of prompts is not that of the utterances, or tokens are missing, not integers, or
            not in the vocabulary.
    """
    batch = len(start)
    if given is None:
        return [Prompt(np.arange(batch), np.array(start, dtype=np.int64)[:, None])]
    rows = list(_rows(given, start, vocabulary))
    lengths = np.array([len(row) for row in rows])
    return [
        Prompt(np.nonzero(lengths == length)[0], np.stack([row for row in rows if len(row) == length]))
        for length in np.unique(lengths)
    ]


def check_tokens(given: ArrayLike, batch: int, vocabulary: Vocabulary, name: str = "decoder_input_ids") -> Tokens:
    """Return token ids as int64 [batch, tokens] after a check; errors call them `name`.

    Raises:
        GenerationError: They have another shape or dtype, or are not in the vocabulary.
    """
    tokens = token_array(given, batch, name)
    if tokens.ndim != 2 or tokens.shape[0] != batch or tokens.shape[1] == 0 or tokens.dtype.kind not in "iu":
        raise GenerationError(f"{name} must be integers [{batch}, tokens], got {tokens.dtype} {list(tokens.shape)}")
    if tokens.min() < 0 or tokens.max() >= vocabulary.size:
        raise GenerationError(f"{name} must be 0 … {vocabulary.size - 1}, got {tokens.min()} … {tokens.max()}")
    if (why := vocabulary.why_left_out(tokens.flat)) is not None:
        raise GenerationError(f"{name} has {why}")
    return tokens.astype(np.int64)


def token_array(given: ArrayLike, batch: int, name: str, remedy: str = "") -> NDArray[Any]:
    """Convert what was given as token ids [batch, tokens] to an array, of any shape and dtype.

    Raises:
        GenerationError: It cannot be converted, for example because its rows have different lengths.
    """
    try:
        return np.asarray(given)
    except Exception as error:  # whatever an object's own conversion raises
        raise GenerationError(
            f"{name} must be integers [{batch}, tokens], but is not an array: {error}{remedy}"
        ) from error


def _rows(given: Prompts, start: Sequence[int], vocabulary: Vocabulary) -> Iterator[Tokens]:
    batch = len(start)
    if not _is_ragged(given):
        tokens = check_tokens(given, batch, vocabulary)
        starts = bool((tokens[:, 0] == np.array(start)).any())
        yield from (row if starts else np.concatenate([[first], row]) for first, row in zip(start, tokens, strict=True))
        return
    if len(given) != batch:
        raise GenerationError(f"decoder_input_ids has {len(given)} prompts for {batch} utterances; give one for each")
    for first, row in zip(start, given, strict=True):
        tokens = check_tokens([row], 1, vocabulary)[0] if _size(row) else np.zeros(0, dtype=np.int64)
        yield tokens if tokens.size and tokens[0] == first else np.concatenate([[first], tokens])


def _is_ragged(given: Prompts) -> TypeGuard[Sequence[Sequence[int]]]:
    return isinstance(given, Sequence) and not isinstance(given, str | bytes) and len({_size(row) for row in given}) > 1


def _size(row: object) -> int:
    try:
        return np.size(row)  # type: ignore[arg-type]
    except ValueError:  # lists of unequal lengths, which `check_tokens` refuses
        return 1
