"""What every sequence begins with: the start token, and a prompt where the caller gives one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import GenerationError
from .search.base import Tokens

Prompts = ArrayLike | Sequence[Sequence[int]]
"""Token ids [batch, tokens]; or a list for each utterance, of any length."""


@dataclass(frozen=True)
class Prompt:
    """Prompts of one length.

    Attributes:
        utterances: Utterances that the prompts belong to, int64 [utterances].
        tokens: Token ids int64 [utterances, length], the start token included.
    """

    utterances: NDArray[np.int64]
    tokens: Tokens


def prompts(given: Prompts | None, start: Sequence[int], vocab_size: int) -> list[Prompt]:
    """Sort prompts by their length: a search takes those of one length.

    Args:
        given: by the caller; the start token is put in front where it is missing. As in transformers an array is taken
            to have it if any of its rows does; of lists, each is looked at by itself.
        start: the start token of every utterance.
        vocab_size: of the decoder.

    Raises:
        GenerationError: another batch, no tokens, or tokens that there are not.
    """
    batch = len(start)
    if given is None:
        return [Prompt(np.arange(batch), np.array(start, dtype=np.int64)[:, None])]
    rows = list(_rows(given, start, vocab_size))
    lengths = np.array([len(row) for row in rows])
    return [
        Prompt(np.nonzero(lengths == length)[0], np.stack([row for row in rows if len(row) == length]))
        for length in np.unique(lengths)
    ]


def check_tokens(given: ArrayLike, batch: int, vocab_size: int, name: str = "decoder_input_ids") -> Tokens:
    """Check token ids [batch, tokens], which errors call `name`.

    Raises:
        GenerationError: another shape or dtype, or tokens that there are not.
    """
    tokens = token_array(given, batch, name)
    if tokens.ndim != 2 or tokens.shape[0] != batch or tokens.shape[1] == 0 or tokens.dtype.kind not in "iu":
        raise GenerationError(f"{name} must be integers [{batch}, tokens], got {tokens.dtype} {list(tokens.shape)}")
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise GenerationError(f"{name} must be 0 … {vocab_size - 1}, got {tokens.min()} … {tokens.max()}")
    return tokens.astype(np.int64)


def token_array(given: ArrayLike, batch: int, name: str, remedy: str = "") -> NDArray[Any]:
    """What is given as token ids [batch, tokens], as an array of any shape and dtype.

    Raises:
        GenerationError: it is none, for its rows have several lengths, for example.
    """
    try:
        return np.asarray(given)
    except Exception as error:  # whatever an object's own conversion raises
        raise GenerationError(
            f"{name} must be integers [{batch}, tokens], and it is no array: {error}{remedy}"
        ) from error


def _rows(given: Prompts, start: Sequence[int], vocab_size: int) -> Iterator[Tokens]:
    batch = len(start)
    if not _is_ragged(given):
        tokens = check_tokens(given, batch, vocab_size)
        starts = bool((tokens[:, 0] == np.array(start)).any())
        yield from (row if starts else np.concatenate([[first], row]) for first, row in zip(start, tokens, strict=True))
        return
    if len(given) != batch:
        raise GenerationError(f"decoder_input_ids has {len(given)} prompts for {batch} utterances")
    for first, row in zip(start, given, strict=True):
        tokens = check_tokens([row], 1, vocab_size)[0] if _size(row) else np.zeros(0, dtype=np.int64)
        yield tokens if tokens.size and tokens[0] == first else np.concatenate([[first], tokens])


def _is_ragged(given: Prompts) -> TypeGuard[Sequence[Sequence[int]]]:
    return isinstance(given, Sequence) and not isinstance(given, str | bytes) and len({_size(row) for row in given}) > 1


def _size(row: object) -> int:
    try:
        return np.size(row)  # type: ignore[arg-type]
    except ValueError:  # of lists of several lengths, which `check_tokens` refuses
        return 1
