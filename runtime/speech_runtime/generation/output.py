"""Output of `generate`, with the sequences of all utterances in arrays."""

from collections.abc import KeysView, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .search.base import SearchResult


class NamedOutput:
    """An output whose attributes can be read as items too, as in transformers: those that are not None."""

    def keys(self) -> KeysView[str]:
        """Return the names of the attributes that are not None."""
        return self._items().keys()

    def __getitem__(self, name: str) -> Any:
        return self._items()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._items()

    def _items(self) -> dict[str, Any]:
        named = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class GenerateOutput(NamedOutput):
    """Sequences and their details: those of `return_dict_in_generate` in transformers, and more.

    Rows are utterances × `num_return_sequences`, the best first. `output["sequences"]` is `output.sequences`.

    Attributes:
        sequences: Token ids int64 [rows, length]: prompt, tokens, end token, padding.
        sequences_scores: Log-probability / (number of new tokens ** length_penalty), float32 [rows].
        token_logprobs: The model's own log-probabilities, before any setting changed them: float32 [rows, new tokens];
            0 after the end.
        beam_indices: Row of `scores` that each token was chosen on, int64 [rows, new tokens]; -1 after the end.
        steps: Number of steps of the decoder; smaller than in transformers where the result is certain earlier.
        lengths: Number of tokens of each sequence, prompt and end token included, padding not: int64 [rows].
        finished: How each sequence ended, strings [rows]: "end", by an end token, a stop string or a stopping
            criterion; "length", cut off at its maximal length; "time", by `max_time`; "stopped", by `cancel`.
        scores: Processed scores of every step, float32 [utterances × beams, vocabulary]; None without `output_scores`.
        logits: Logits of every step, float32 [utterances × beams, vocabulary]; None without `output_logits`.
    """

    sequences: NDArray[np.int64]
    sequences_scores: NDArray[np.float32]
    token_logprobs: NDArray[np.float32]
    beam_indices: NDArray[np.int64]
    steps: int
    lengths: NDArray[np.int64]
    finished: NDArray[np.str_]
    scores: tuple[NDArray[np.float32], ...] | None = None
    logits: tuple[NDArray[np.float32], ...] | None = None


def joined(
    found: Sequence[Sequence[SearchResult]],
    fill: int,
    steps: int,
    beams: int,
    scores: tuple[NDArray[np.float32], ...] | None = None,
    logits: tuple[NDArray[np.float32], ...] | None = None,
) -> GenerateOutput:
    """Join the results of all utterances in arrays.

    Args:
        found: Results for each utterance, best first, the same number for each.
        fill: Token id to pad sequences with.
        steps: As in `GenerateOutput`.
        beams: Number of rows of `scores` for each utterance.
        scores: As in `GenerateOutput`.
        logits: As in `GenerateOutput`.
    """
    rows = [result for results in found for result in results]
    beam_indices = _padded([result.beam_indices for result in rows], -1, np.int64)
    first_row = np.repeat(np.arange(len(found)) * beams, len(found[0]))[:, None]
    return GenerateOutput(
        sequences=_padded([result.tokens for result in rows], fill, np.int64),
        sequences_scores=np.array([result.score for result in rows], dtype=np.float32),
        token_logprobs=_padded([result.token_logprobs for result in rows], 0.0, np.float32),
        beam_indices=np.where(beam_indices < 0, -1, beam_indices + first_row),
        steps=steps,
        lengths=np.array([len(result.tokens) for result in rows]),
        finished=np.array([result.finish for result in rows], dtype="<U7"),
        scores=scores,
        logits=logits,
    )


def _padded(rows: Sequence[Sequence[float]], filler: float, dtype: DTypeLike) -> NDArray[Any]:
    """Return rows of several lengths as one array, filled up after their ends."""
    padded = np.full((len(rows), max(map(len, rows))), filler, dtype=dtype)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded
