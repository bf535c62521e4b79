"""Beam search over candidates, with the very semantics of transformers' `GenerationMixin._beam_search`."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import GenerationError
from .candidates import Candidates
from .config import GenerationConfig
from .sampling import sample_without_replacement
from .state import Hypotheses, Tokens, raw_logprobs, take_rows
from .stopping import Stopping

_LOWEST = -1e9
"""What transformers adds to the score of a hypothesis that must not be chosen."""

_SORTED_WHOLE = 4096
"""Up to so many candidates are sorted whole; of more, the best are picked out first."""


class BeamSearch:
    """Live and finished hypotheses of a batch.

    Feed it the candidates of each step with `advance` and decode what it says next, until it is `done`. Live
    hypotheses are sorted best first. Arithmetic is float32 in transformers' order, so that ties fall alike.
    """

    without_rows = frozenset({"_eos"})

    def __init__(
        self,
        config: GenerationConfig,
        prompt: Tokens,
        max_length: int,
        stopping: Stopping,
        generator: np.random.Generator,
    ) -> None:
        """Start from `prompt` int64 [batch, tokens], the start token included."""
        batch, self._prompt_length = prompt.shape
        self._config = config
        self._beams = config.num_beams
        self._early_stopping = config.early_stopping
        self._max_length = max_length
        self._stopping = stopping
        self._generator = generator
        self._eos = np.array(config.eos_token_ids, dtype=np.int64)
        self._keep = continuations_kept(config)

        self.length = self._prompt_length
        shape, new = (batch, self._beams), max_length - self.length
        self._live = np.full((*shape, max_length), config.fill_token_id, dtype=np.int64)
        self._live[:, :, : self.length] = prompt[:, None]
        self._live_scores = np.zeros(shape, dtype=np.float32)
        self._live_scores[:, 1:] = _LOWEST  # the beams start alike: only the first one may be continued
        self._live_logprobs = np.zeros((*shape, new), dtype=np.float32)
        self._live_beams = np.full((*shape, new), -1)
        self._finished = self._live.copy()
        self._finished_scores = np.full(shape, _LOWEST, dtype=np.float32)
        self._finished_logprobs = self._live_logprobs.copy()
        self._finished_beams = self._live_beams.copy()
        self._finished_lengths = np.full(shape, self.length)
        self._is_finished = np.zeros(shape, dtype=bool)
        self._improvable = np.ones((batch, 1), dtype=bool)
        self.done = False

    @property
    def live(self) -> Tokens:
        """See `Search.live`."""
        return self._live[:, :, : self.length]

    @property
    def open_rows(self) -> NDArray[np.bool_]:
        """See `Search.open_rows`."""
        return ~self._closed()[:, 0]

    @property
    def decided(self) -> list[list[int]]:
        """See `Search.decided`: what all live and finished hypotheses begin with."""
        prefixes = []
        for live, finished, is_finished, scores in zip(
            self.live, self._finished, self._is_finished, self._live_scores, strict=True
        ):
            rivals = np.concatenate([live[scores > _LOWEST / 2], finished[is_finished, : self.length]])
            same = (rivals == rivals[:1]).all(axis=0)
            prefixes.append(rivals[0, : self.length if same.all() else int(same.argmin())].tolist())
        return prefixes

    def advance(self, candidates: Candidates, raw: Candidates, last: bool) -> tuple[Tokens, Tokens]:
        """See `Search.advance`."""
        scores, beam_idx, tokens = self._best_continuations(candidates)
        if not np.isfinite(scores[:, 0]).all():
            raise GenerationError(
                f"no token is possible at position {self.length}: the settings ban all of them, or the model's logits "
                "are not finite"
            )
        logprobs = raw_logprobs(raw, tokens, beam_idx)
        ends = np.isin(tokens, self._eos)
        if self._stopping.criteria:
            ends |= self._stopping.of(self._continued(beam_idx, tokens)[:, :, : self.length + 1])
        if last or self.length + 1 >= self._max_length:
            ends[:] = True
        finishing = ends.copy()
        finishing[:, self._beams :] = False
        if finishing.any():
            self._finish(finishing, scores, beam_idx, tokens, logprobs)

        live_scores = scores + _lowered(ends)
        best = np.argsort(-live_scores, axis=1, kind="stable")[:, : self._beams]
        self._live_scores, logprobs = (np.take_along_axis(values, best, axis=1) for values in (live_scores, logprobs))
        beam_idx, tokens = (np.take_along_axis(values, best, axis=1) for values in (beam_idx, tokens))
        self._live = self._continued(beam_idx, tokens)
        self._live_logprobs, self._live_beams = self._history(beam_idx, logprobs)
        self.length += 1
        self._check_done(all_ended=bool(ends.all()))
        return tokens, beam_idx

    def rows(self, rows: Tokens) -> Self:
        """See `Search.rows`."""
        kept: Self = take_rows(self, rows)
        return kept

    def result(self) -> Hypotheses:
        """See `Search.result`."""
        best = slice(0, self._config.num_return_sequences)
        longest = int(self._finished_lengths[:, best].max())
        taken = slice(0, longest - self._prompt_length)
        return Hypotheses(
            sequences=self._finished[:, best, :longest],
            lengths=self._finished_lengths[:, best],
            scores=self._finished_scores[:, best],
            token_logprobs=self._finished_logprobs[:, best, taken],
            beam_indices=self._finished_beams[:, best, taken],
        )

    def _continued(self, beam_idx: Tokens, tokens: Tokens) -> Tokens:
        sequences = np.take_along_axis(self._live, beam_idx[:, :, None], axis=1)
        sequences[:, :, self.length] = tokens
        return sequences

    def _history(self, beam_idx: Tokens, logprobs: NDArray[np.float32]) -> tuple[NDArray[np.float32], Tokens]:
        """The log-probabilities and beams of every token of continuations."""
        new = self.length - self._prompt_length
        history = np.take_along_axis(self._live_logprobs, beam_idx[:, :, None], axis=1)
        history[:, :, new] = logprobs
        beams = np.take_along_axis(self._live_beams, beam_idx[:, :, None], axis=1)
        beams[:, :, new] = beam_idx
        return history, beams

    def _closed(self) -> NDArray[np.bool_]:
        """Utterances [batch, 1] whose finished hypotheses no continuation may join any more."""
        closed = ~self._improvable
        if self._early_stopping is True:
            closed = closed | self._is_finished.all(axis=1, keepdims=True)
        return closed

    def _best_continuations(
        self, candidates: Candidates
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Scores, beams and tokens of the `_keep` best continuations of each utterance, best first."""
        batch, _, width = candidates.ids.shape
        totals = (candidates.scores + self._live_scores[:, :, None]).reshape(batch, -1)
        ids = np.broadcast_to(candidates.ids, (batch, self._beams, width)).reshape(batch, -1)
        if totals.shape[1] < self._keep:
            missing = ((0, 0), (0, self._keep - totals.shape[1]))
            totals = np.pad(totals, missing, constant_values=-np.inf)
            ids = np.pad(ids, missing)
        if self._config.do_sample:
            order = sample_without_replacement(totals, self._keep, self._generator)
            scores, tokens = np.take_along_axis(totals, order, axis=1), np.take_along_axis(ids, order, axis=1)
            return scores, np.minimum(order // width, self._beams - 1), tokens
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
        beam_idx: Tokens,
        tokens: Tokens,
        logprobs: NDArray[np.float32],
    ) -> None:
        """Merge the continuations that end here into the finished hypotheses, and keep the best."""
        new_tokens = self.length + 1 - self._prompt_length
        scores = _penalised(scores, new_tokens**self._config.length_penalty)
        scores = scores + _lowered(self._closed())
        scores = scores + _lowered(~finishing)

        merged = np.concatenate([self._finished_scores, scores], axis=1)
        best = np.argsort(-merged, axis=1, kind="stable")[:, : self._beams]
        lengths = np.broadcast_to(self.length + 1, scores.shape)
        self._finished_scores = np.take_along_axis(merged, best, axis=1)
        self._finished = _merge(self._finished, self._continued(beam_idx, tokens), best[:, :, None])
        history, beams = self._history(beam_idx, logprobs)
        self._finished_logprobs = _merge(self._finished_logprobs, history, best[:, :, None])
        self._finished_beams = _merge(self._finished_beams, beams, best[:, :, None])
        self._finished_lengths = _merge(self._finished_lengths, lengths, best)
        self._is_finished = _merge(self._is_finished, finishing, best)

    def _check_done(self, all_ended: bool) -> None:
        penalty = self._config.length_penalty
        new_tokens = self.length - self._prompt_length
        if self._early_stopping == "never" and penalty > 0.0:
            new_tokens = self._max_length - self._prompt_length
        best_possible = _penalised(self._live_scores[:, :1], new_tokens**penalty)
        worst = np.where(self._is_finished, self._finished_scores.min(axis=1, keepdims=True), _LOWEST)
        self._improvable &= (best_possible > worst).any(axis=1, keepdims=True)
        all_full = self._early_stopping is True and self._is_finished.all()
        self.done = all_ended or bool(all_full) or not self._improvable.any()


def continuations_kept(config: GenerationConfig) -> int:
    """Continuations of an utterance that a step keeps: enough to go on where the best ones all end."""
    return max(2, 1 + len(config.eos_token_ids)) * config.num_beams


def _penalised(scores: NDArray[np.float32], penalty: float) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # of the lowest numbers there are, as in torch
        return scores / np.float32(penalty)


def _merge(old: NDArray[Any], new: NDArray[Any], best: NDArray[np.int64]) -> NDArray[Any]:
    return np.take_along_axis(np.concatenate([old, new], axis=1), best, axis=1)


def _lowered(unwanted: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(unwanted, np.float32(_LOWEST), np.float32(0))
