"""The candidates for the next token of every beam."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Slots = Sequence[Sequence[int]]
"""For each utterance the row that each beam has in what a decoder answers with."""


class Candidates:
    """Next tokens of every beam, or of one beam where all are still alike."""

    def __init__(
        self, ids: NDArray[np.int64], scores: NDArray[np.float32], *, whole: bool = False, slots: Slots | None = None
    ) -> None:
        """Take the answer of a decoder.

        Args:
            ids: int64 [batch, beams, candidates].
            scores: what they are chosen by, float32 [batch, beams, candidates]: log-probabilities, or logits.
            whole: whether they are the whole vocabulary, in order.
            slots: of the beams; None where they are in order.
        """
        self._ids, self._scores, self._slots = ids, scores, slots
        self.whole = whole

    @property
    def ids(self) -> NDArray[np.int64]:
        """Int64 [batch, beams, candidates]."""
        self._set_in_order()
        return self._ids

    @property
    def scores(self) -> NDArray[np.float32]:
        """What they are chosen by, float32 [batch, beams, candidates]: log-probabilities, or logits."""
        self._set_in_order()
        return self._scores

    def rows_without_numbers(self) -> list[int]:
        """Utterances with a beam whose best score is NaN or infinite: its logits were, or all of them were -inf."""
        best = self._scores.max(axis=-1) if self.whole else self._scores[:, :, 0]
        finite = np.isfinite(best)
        return [] if finite.all() else np.flatnonzero(~finite.all(axis=1)).tolist()

    def with_scores(self, scores: NDArray[np.float32]) -> "Candidates":
        """The same tokens with other scores."""
        return Candidates(self.ids, scores, whole=self.whole)

    def first(self, count: int) -> Iterator[tuple[Sequence[int], list[list[float]], list[list[int]]]]:
        """Of each utterance the slots of its beams, and by slot the scores and ids of the first `count` of each."""
        scores, ids = self._scores[:, :, :count].tolist(), self._ids[:, :, :count].tolist()
        slots: Slots = [range(self._ids.shape[1])] * len(ids) if self._slots is None else self._slots
        return zip(slots, scores, ids, strict=True)

    def _set_in_order(self) -> None:
        if self._slots is not None:
            self._ids, self._scores = in_order(self._ids, self._slots), in_order(self._scores, self._slots)
            self._slots = None


def in_order(found: NDArray[Any], slots: Slots) -> NDArray[Any]:
    """A copy of what a decoder answers with, [batch, beams, …], in the order of the beams."""
    copy: NDArray[Any] = found[np.arange(len(found))[:, None], slots]
    return copy


def whole_vocabulary(logits: NDArray[np.float32]) -> Candidates:
    """All tokens, with the logits [batch, beams, vocabulary] of a step."""
    return Candidates(np.broadcast_to(np.arange(logits.shape[-1]), logits.shape), logits, whole=True)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logprobs: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logprobs
