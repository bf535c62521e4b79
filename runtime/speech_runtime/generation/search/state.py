"""What every search knows of its sequences, and what it makes of them in the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from .candidates import Candidates
from .finish import Cut

Tokens = NDArray[np.int64]

Rows = Sequence[Sequence[int]]
"""For each utterance a number for each of its beams. Of so few, lists are faster than arrays."""


@dataclass(frozen=True)
class Hypotheses:
    """Sequences of one search, best first, row by row [batch, num_return_sequences].

    Attributes:
        sequences: int64 [batch, returned, longest], filled up behind their ends.
        lengths: int64 [batch, returned], the prompt included.
        scores: float32 [batch, returned]: log-probability / (new tokens ** length_penalty).
        token_logprobs: float32 [batch, returned, longest - prompt], the model's own, before any setting changed them.
        beam_indices: int64, like token_logprobs: the beam that each token was chosen on; -1 behind the end.
        finished: strings [batch, returned], how each ended; see `Finish`.
    """

    sequences: Tokens
    lengths: Tokens
    scores: NDArray[np.float32]
    token_logprobs: NDArray[np.float32]
    beam_indices: Tokens
    finished: NDArray[np.str_]


class Search(Protocol):
    """Feed it the candidates of each step, and decode what it says next, until it is `done`."""

    length: int
    done: bool

    @property
    def live(self) -> Tokens:
        """The sequences that go on, int64 [batch, beams, length]."""

    @property
    def open_rows(self) -> NDArray[np.bool_]:
        """Utterances whose result may still change, bool [batch]."""

    @property
    def decided(self) -> list[list[int]]:
        """For each utterance the tokens that its result is sure to begin with, the prompt included."""

    def advance(self, candidates: Candidates, raw: Candidates, cut: Cut | None) -> tuple[Rows, Rows]:
        """Go one token further.

        Args:
            candidates: of every live sequence, or of one where all are still alike (the first step).
            raw: the same before any setting changed them: log-probabilities, or logits of the whole vocabulary.
            cut: what ends every sequence with this token, if anything does; its maximal length need not be said.

        Returns:
            The tokens to decode next and the beams they continue.

        Raises:
            GenerationError: no candidate is possible.
        """

    def rows(self, rows: Tokens) -> Self:
        """The search of some utterances only."""

    def result(self) -> Hypotheses:
        """The best sequences of each utterance."""


def take_rows(search: Any, rows: Tokens) -> Any:
    """A copy of a search with some utterances only: every array and list of its state has the batch first."""
    kept = object.__new__(type(search))
    for name, value in vars(search).items():
        if isinstance(value, list):
            value = [value[row] for row in rows.tolist()]
        elif isinstance(value, np.ndarray) and name not in search.without_rows:
            value = value[rows]
        setattr(kept, name, value)
    return kept


def pick(values: NDArray[Any], positions: Tokens) -> NDArray[Any]:
    """Values [batch, n, …] at positions [batch, chosen]; as `take_along_axis`, in a tenth of its time."""
    if len(values) == 1:
        few: NDArray[Any] = values[0].take(positions, axis=0)
        return few
    return values[np.arange(len(values))[:, None], positions]


def is_among(tokens: Tokens, few: Tokens) -> NDArray[np.bool_]:
    """Whether each token is one of a few; as `isin`, in a tenth of its time."""
    found: NDArray[np.bool_] = tokens == few[0] if few.size == 1 else (tokens[..., None] == few).any(axis=-1)
    return found


def raw_logprobs(raw: Candidates, tokens: Tokens, beam_idx: Tokens) -> NDArray[np.float32]:
    """The model's log-probabilities of chosen tokens [batch, chosen]; 0 for what only fills up.

    Args:
        raw: of a step, [batch, beams or 1, candidates].
        tokens: int64 [batch, chosen].
        beam_idx: int64 [batch, chosen], whose continuations they are.
    """
    beam_idx = np.minimum(beam_idx, raw.scores.shape[1] - 1)
    if raw.whole:
        highest = raw.scores.max(axis=-1)
        total = highest + np.log(np.exp(raw.scores - highest[..., None]).sum(axis=-1))
        logits = raw.scores[np.arange(len(tokens))[:, None], beam_idx, tokens]
        logprobs: NDArray[np.float32] = logits - pick(total, beam_idx)
        return logprobs
    here = pick(raw.ids, beam_idx) == tokens[:, :, None]
    found: NDArray[np.float32] = np.where(here, pick(raw.scores, beam_idx), np.float32(0)).sum(axis=-1)
    return found
