"""Types that all searches share: candidates of a step, the search protocol and its results."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..config import GenerationConfig
from .stopping import Cut, Finish

Tokens = NDArray[np.int64]
"""Token ids."""

PerBeam = Sequence[Sequence[int]]
"""One number per beam, for each utterance. With so few numbers, lists are faster than arrays."""


class Candidates:
    """Candidates for the next token of every beam of an utterance, or of one beam while all are still alike.

    Arrays have a first axis of 1, as the processors of a search expect.
    """

    def __init__(
        self,
        ids: NDArray[np.int64],
        scores: NDArray[np.float32],
        *,
        full_vocab: bool = False,
        slots: Sequence[int] | None = None,
        is_sorted: bool = False,
        is_finite: bool = True,
        logits: Callable[[], NDArray[np.float32]] | None = None,
    ) -> None:
        """Wrap the output of a decoder.

        Args:
            ids: Token ids, int64 [1, beams, candidates].
            scores: Scores to choose by, float32 [1, beams, candidates]: log-probabilities or logits.
            full_vocab: If true, the candidates are the whole vocabulary, in order.
            slots: Position of each beam on the second axis of `ids` and `scores`; None if the beams are in order.
            is_sorted: If true, the scores are the model's log-probabilities, best first; tokens that are banned follow
                at -inf.
            is_finite: False if a beam's best score is not finite: its logits were NaN or infinite, or all were -inf.
            logits: Function that returns the logits [1, beams, vocabulary] of the same step, while it is the last; None
                if they were not kept.
        """
        self._ids, self._scores, self._slots = ids, scores, slots
        self._logits = logits
        self.full_vocab, self.is_sorted, self.is_finite = full_vocab, is_sorted, is_finite

    @property
    def ids(self) -> NDArray[np.int64]:
        """Token ids, int64 [1, beams, candidates], in the order of the beams."""
        self._set_in_order()
        return self._ids

    @property
    def scores(self) -> NDArray[np.float32]:
        """Scores to choose by, float32 [1, beams, candidates]: log-probabilities or logits."""
        self._set_in_order()
        return self._scores

    def with_scores(self, scores: NDArray[np.float32]) -> "Candidates":
        """Return the same tokens with other scores."""
        return Candidates(self.ids, scores, full_vocab=self.full_vocab)

    def without(self, banned: NDArray[np.bool_]) -> "Candidates":
        """Return the candidates with a score of -inf for banned tokens.

        Args:
            banned: Marks of the tokens that are banned, bool [tokens + 1]; the last one, false, is that of all others.
        """
        if self.full_vocab:
            scores = self.scores.copy()
            scores[:, :, np.flatnonzero(banned[: scores.shape[2]])] = -np.inf
            return self.with_scores(scores)
        marked = banned[np.minimum(self._ids, len(banned) - 1)]
        if not marked.any():
            return self
        ids, scores = self._ids, np.where(marked, np.float32(-np.inf), self._scores)
        if self.is_sorted:
            order = np.argsort(marked, axis=2, kind="stable")
            ids, scores = np.take_along_axis(ids, order, axis=2), np.take_along_axis(scores, order, axis=2)
        return Candidates(ids, scores, slots=self._slots, is_sorted=self.is_sorted)

    def falls_short_of(self, count: int) -> bool:
        """Return true if a beam has fewer than `count` candidates left, out of sorted ones of which some are banned."""
        return bool((self._scores[:, :, count - 1] == -np.inf).any())

    def whole_vocabulary(self) -> "Candidates":
        """Return the whole vocabulary of the same step, whose logits were kept."""
        if self._logits is None:
            raise ValueError("the logits of this step were not kept")
        return all_tokens(self._logits())

    def first(self, count: int) -> tuple[Sequence[int], list[list[float]], list[list[int]]]:
        """Return the beams' slots, and the scores and ids of each slot's first `count` candidates."""
        scores, ids = self._scores[0, :, :count].tolist(), self._ids[0, :, :count].tolist()
        return range(len(ids)) if self._slots is None else self._slots, scores, ids

    def _set_in_order(self) -> None:
        if self._slots is not None:
            self._ids, self._scores = self._ids[:, self._slots], self._scores[:, self._slots]
            self._slots = None


def in_order(found: NDArray[Any], slots: PerBeam) -> NDArray[Any]:
    """Return a copy of a decoder's output [batch, slots, …] in the order of the beams."""
    copy: NDArray[Any] = found[np.arange(len(found))[:, None], slots]
    return copy


def all_tokens(logits: NDArray[np.float32], *, is_finite: bool = True) -> Candidates:
    """Return the whole vocabulary as candidates, from the logits [1, beams, vocabulary] of a step."""
    ids = np.broadcast_to(np.arange(logits.shape[-1]), logits.shape)
    return Candidates(ids, logits, full_vocab=True, is_finite=is_finite)


class SearchResult(NamedTuple):
    """One sequence that a search found.

    Attributes:
        tokens: Token ids, prompt and end token included.
        score: Log-probability / (number of new tokens ** length_penalty), a float32 number.
        token_logprobs: The model's own log-probability of each new token, before any setting changed it.
        beam_indices: Beam of the utterance that each new token was chosen on.
        finish: How the sequence ended.
    """

    tokens: Sequence[int]
    score: float
    token_logprobs: Sequence[float]
    beam_indices: Sequence[int]
    finish: Finish


class Search(Protocol):
    """Chooses the next tokens of an utterance: call `advance` with the candidates of each step until it is `done`.

    Attributes:
        length: Present length of the sequences, the prompt included.
        done: True if no step is needed any more.
    """

    length: int
    done: bool

    @property
    def live(self) -> Tokens:
        """Sequences that are still growing, int64 [1, beams, length]."""

    @property
    def decided(self) -> list[int]:
        """Tokens that the result is certain to begin with, the prompt included."""

    def advance(self, candidates: Candidates, raw: Candidates, cut: Cut | None) -> tuple[Sequence[int], Sequence[int]]:
        """Choose the next token of every beam.

        Args:
            candidates: Candidates of every live sequence, or of one while all are still alike (the first step).
            raw: The same before any setting changed them: log-probabilities, or logits of the whole vocabulary.
            cut: Reason to end every sequence with this token, if there is one. The search itself takes care of the
                maximal length.

        Returns:
            The tokens to decode next, and the beams that they continue (`beam_idx`).

        Raises:
            GenerationError: No candidate is possible.
        """

    def results(self) -> list[SearchResult]:
        """Return the sequences that were found, best first."""


def rows_per_utterance(config: GenerationConfig) -> int:
    """Return how many rows an utterance has in a step of the decoder: its beams, or the sequences that are drawn."""
    return config.num_beams if config.num_beams > 1 else config.num_return_sequences
