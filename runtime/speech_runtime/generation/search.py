"""Beam search over candidates, with the very semantics of transformers' `GenerationMixin._beam_search`.

Greedy search is one beam that stops at its first finished hypothesis.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GenerationError
from .candidates import Candidates
from .config import GenerationConfig

_LOWEST = -1e9
"""What transformers adds to the score of a hypothesis that must not be chosen."""

_SORTED_WHOLE = 4096
"""Up to so many candidates are sorted whole; of more, the best are picked out first."""


@dataclass(frozen=True)
class Hypotheses:
    """The result: sequences int64 [batch × num_return_sequences, length] and their scores float32, best first."""

    sequences: NDArray[np.int64]
    scores: NDArray[np.float32]


class BeamSearch:
    """Live and finished hypotheses of a batch.

    Feed it the candidates of each step with `advance` and decode what it says next, until it is `done`. Live
    hypotheses are sorted best first. Arithmetic is float32 in transformers' order, so that ties fall alike.
    """

    def __init__(self, config: GenerationConfig, prompt: NDArray[np.int64], max_length: int) -> None:
        """Start from `prompt` int64 [batch, tokens], the start token included."""
        batch, self._prompt_length = prompt.shape
        self._config = config
        self._beams = config.num_beams
        self._early_stopping = config.early_stopping if config.num_beams > 1 else True
        self._max_length = max_length
        self._eos = np.array(config.eos_token_ids, dtype=np.int64)
        self._keep = max(2, 1 + self._eos.size) * self._beams

        self.length = self._prompt_length
        self._live = np.full((batch, self._beams, max_length), config.fill_token_id, dtype=np.int64)
        self._live[:, :, : self.length] = prompt[:, None]
        self._live_scores = np.zeros((batch, self._beams), dtype=np.float32)
        self._live_scores[:, 1:] = _LOWEST  # the beams start alike: only the first one may be continued
        self._finished = self._live.copy()
        self._finished_scores = np.full((batch, self._beams), _LOWEST, dtype=np.float32)
        self._finished_lengths = np.full((batch, self._beams), self.length)
        self._is_finished = np.zeros((batch, self._beams), dtype=bool)
        self._improvable = np.ones((batch, 1), dtype=bool)
        self.done = False

    @property
    def candidates_needed(self) -> int:
        """The most candidates of one beam that a step can use."""
        return self._keep

    def advance(self, candidates: Candidates) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Go one token further.

        Args:
            candidates: of every live beam, or of one beam where all are still alike (the first step).

        Returns:
            The tokens to decode next and the beams they continue, both int64 [batch, beams].

        Raises:
            GenerationError: no candidate is possible.
        """
        scores, beam_idx, tokens = self._best_continuations(candidates)
        if not np.isfinite(scores[:, 0]).all():
            raise GenerationError(
                f"no token is possible at position {self.length}: the settings ban all of them, or the model's logits "
                "are not finite"
            )
        ends = np.isin(tokens, self._eos)
        if self.length + 1 >= self._max_length:
            ends[:] = True
        finishing = ends.copy()
        finishing[:, self._beams :] = False
        if finishing.any():
            self._finish(finishing, scores, beam_idx, tokens)

        if ends.any():
            live_scores = scores + _lowered(ends)
            best = np.argsort(-live_scores, axis=1, kind="stable")[:, : self._beams]
            scores = np.take_along_axis(live_scores, best, axis=1)
            beam_idx, tokens = np.take_along_axis(beam_idx, best, axis=1), np.take_along_axis(tokens, best, axis=1)
        else:
            live = slice(None, self._beams)
            scores, beam_idx, tokens = scores[:, live], beam_idx[:, live], tokens[:, live]
        self._live[:, :, : self.length] = np.take_along_axis(
            self._live[:, :, : self.length], beam_idx[:, :, None], axis=1
        )
        self._live[:, :, self.length] = tokens
        self._live_scores = scores
        self.length += 1
        self._check_done(all_ended=bool(ends.all()))
        return tokens, beam_idx

    def result(self) -> Hypotheses:
        """The best finished hypotheses of each utterance."""
        returned = self._config.num_return_sequences
        longest = int(self._finished_lengths[:, :returned].max())
        sequences = self._finished[:, :returned, :longest]
        return Hypotheses(sequences.reshape(-1, longest), self._finished_scores[:, :returned].flatten())

    def _best_continuations(
        self, candidates: Candidates
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Scores, beams and tokens of the `_keep` best continuations of each utterance, best first."""
        batch, _, width = candidates.ids.shape
        totals = (candidates.logprobs + self._live_scores[:, :, None]).reshape(batch, -1)
        ids = np.broadcast_to(candidates.ids, (batch, self._beams, width)).reshape(batch, -1)
        if totals.shape[1] < self._keep:
            missing = ((0, 0), (0, self._keep - totals.shape[1]))
            totals = np.pad(totals, missing, constant_values=-np.inf)
            ids = np.pad(ids, missing)
        if totals.shape[1] > _SORTED_WHOLE:
            best = np.sort(np.argpartition(-totals, self._keep, axis=1)[:, : self._keep], axis=1)
        else:
            best = np.broadcast_to(np.arange(totals.shape[1]), totals.shape)
        order = np.argsort(-np.take_along_axis(totals, best, axis=1), axis=1, kind="stable")[:, : self._keep]
        best = np.take_along_axis(best, order, axis=1)
        scores, tokens = np.take_along_axis(totals, best, axis=1), np.take_along_axis(ids, best, axis=1)
        return scores, np.minimum(best // width, self._beams - 1), tokens

    def _finish(
        self,
        finishing: NDArray[np.bool_],
        scores: NDArray[np.float32],
        beam_idx: NDArray[np.int64],
        tokens: NDArray[np.int64],
    ) -> None:
        """Merge the continuations that end here into the finished hypotheses, and keep the best."""
        new_tokens = self.length + 1 - self._prompt_length
        scores = scores / np.float32(new_tokens**self._config.length_penalty)
        closed = ~self._improvable
        if self._early_stopping is True:
            closed = closed | self._is_finished.all(axis=1, keepdims=True)
        scores = scores + _lowered(closed)
        scores = scores + _lowered(~finishing)

        sequences = np.take_along_axis(self._live, beam_idx[:, :, None], axis=1)
        sequences[:, :, self.length] = tokens
        merged = np.concatenate([self._finished_scores, scores], axis=1)
        best = np.argsort(-merged, axis=1, kind="stable")[:, : self._beams]
        lengths = np.broadcast_to(self.length + 1, scores.shape)
        self._finished_scores = np.take_along_axis(merged, best, axis=1)
        self._finished = _merge(self._finished, sequences, best[:, :, None])
        self._finished_lengths = _merge(self._finished_lengths, lengths, best)
        self._is_finished = _merge(self._is_finished, finishing, best)

    def _check_done(self, all_ended: bool) -> None:
        penalty = self._config.length_penalty
        new_tokens = self.length - self._prompt_length
        if self._early_stopping == "never" and penalty > 0.0:
            new_tokens = self._max_length - self._prompt_length
        best_possible = self._live_scores[:, :1] / np.float32(new_tokens**penalty)
        worst = np.where(self._is_finished, self._finished_scores.min(axis=1, keepdims=True), _LOWEST)
        self._improvable &= (best_possible > worst).any(axis=1, keepdims=True)
        all_full = self._early_stopping is True and self._is_finished.all()
        self.done = all_ended or bool(all_full) or not self._improvable.any()


def _merge(old: NDArray[Any], new: NDArray[Any], best: NDArray[np.int64]) -> NDArray[Any]:
    return np.take_along_axis(np.concatenate([old, new], axis=1), best, axis=1)


def _lowered(unwanted: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(unwanted, np.float32(_LOWEST), np.float32(0))
