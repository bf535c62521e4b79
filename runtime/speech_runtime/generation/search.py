"""Beam search over candidates, with the very semantics of transformers' `GenerationMixin._beam_search`."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import GenerationError
from .candidates import Candidates
from .config import GenerationConfig
from .sampling import sample_without_replacement
from .state import Hypotheses, Tokens, is_among, pick, raw_logprobs, take_rows
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
        # Of every step, the beams that its tokens were chosen on and their log-probabilities: [batch, step, beams].
        self._parents = np.zeros((batch, new, self._beams), dtype=np.int64)
        self._logprobs = np.zeros((batch, new, self._beams), dtype=np.float32)
        self._finished = self._live.copy()
        self._finished_scores = np.full(shape, _LOWEST, dtype=np.float32)
        self._finished_parents = np.zeros(shape, dtype=np.int64)
        self._finished_logprobs = np.zeros(shape, dtype=np.float32)
        self._finished_lengths = np.full(shape, self.length)
        self._is_finished = np.zeros(shape, dtype=bool)
        self._any_finished = False
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
        if candidates is raw and not raw.whole and not self._config.do_sample:
            scores, beam_idx, tokens, logprobs = self._best_of_sorted(candidates)
        else:
            scores, beam_idx, tokens = self._best_continuations(candidates)
            logprobs = raw_logprobs(raw, tokens, beam_idx)
        if not ((possible := scores[:, 0] > -np.inf).all() or (possible | ~self.open_rows).all()):
            raise GenerationError(
                f"no token is possible at position {self.length}: the settings ban all of them, or the model's logits "
                "are not numbers"
            )
        ends = is_among(tokens, self._eos)
        if self._stopping.criteria:
            ends |= self._stopping.of(self._continued(beam_idx, tokens)[:, :, : self.length + 1])
        if last or self.length + 1 >= self._max_length:
            ends[:] = True

        all_ended = False
        if ends.any():
            all_ended = bool(ends.all())
            finishing = ends.copy()
            finishing[:, self._beams :] = False
            if finishing.any():
                self._finish(finishing, scores, beam_idx, tokens, logprobs)
            live_scores = scores + _lowered(ends)
            best = np.argsort(-live_scores, axis=1, kind="stable")[:, : self._beams]
            scores, logprobs = pick(live_scores, best), pick(logprobs, best)
            beam_idx, tokens = pick(beam_idx, best), pick(tokens, best)
        else:
            live = slice(0, self._beams)
            scores, logprobs, beam_idx, tokens = scores[:, live], logprobs[:, live], beam_idx[:, live], tokens[:, live]
        step = self.length - self._prompt_length
        self._live_scores, self._live = scores, self._continued(beam_idx, tokens)
        self._parents[:, step], self._logprobs[:, step] = beam_idx, logprobs
        self.length += 1
        self._check_done(all_ended)
        return tokens, beam_idx

    def rows(self, rows: Tokens) -> Self:
        """See `Search.rows`."""
        kept: Self = take_rows(self, rows)
        return kept

    def result(self) -> Hypotheses:
        """See `Search.result`."""
        best = slice(0, self._config.num_return_sequences)
        longest = int(self._finished_lengths[:, best].max())
        logprobs, beams = self._histories(longest - self._prompt_length)
        return Hypotheses(
            sequences=self._finished[:, best, :longest],
            lengths=self._finished_lengths[:, best],
            scores=self._finished_scores[:, best],
            token_logprobs=logprobs[:, best],
            beam_indices=beams[:, best],
        )

    def _continued(self, beam_idx: Tokens, tokens: Tokens) -> Tokens:
        sequences = pick(self._live, beam_idx)
        sequences[:, :, self.length] = tokens
        return sequences

    def _histories(self, new: int) -> tuple[NDArray[np.float32], Tokens]:
        """Log-probabilities and beams of the tokens of finished hypotheses, [batch, beams, new]: traced back."""
        last, on = (self._finished_lengths - self._prompt_length - 1)[:, :, None], self._finished_parents
        steps, rows = np.arange(new), np.arange(len(on))[:, None]
        before, ending = steps < last, steps == last
        live = np.empty(before.shape, dtype=np.int64)
        for step in range(new - 1, -1, -1):
            live[:, :, step] = on
            on = np.where(before[:, :, step], self._parents[rows, step, on], on)
        here, parents = (kept[rows[:, :, None], steps, live] for kept in (self._logprobs, self._parents))
        logprobs = np.where(ending, self._finished_logprobs[:, :, None], np.where(before, here, np.float32(0)))
        return logprobs, np.where(ending, self._finished_parents[:, :, None], np.where(before, parents, -1))

    def _closed(self) -> NDArray[np.bool_]:
        """Utterances [batch, 1] whose finished hypotheses no continuation may join any more."""
        closed = ~self._improvable
        if self._early_stopping is True:
            closed = closed | self._is_finished.all(axis=1, keepdims=True)
        return closed

    def _best_of_sorted(
        self, candidates: Candidates
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """As `_best_continuations`, with log-probabilities, where the candidates of each beam come best first.

        Those behind the `_keep` best of their own beam cannot be among the `_keep` best of all.
        """
        batch, alike, width = candidates.ids.shape
        width = min(width, self._keep)
        few, ids = candidates.scores[:, :, :width], candidates.ids[:, :, :width]
        totals = few + self._live_scores[:, :, None]
        if alike < self._beams or totals.size < batch * self._keep:
            scores, beam_idx, tokens = self._best_continuations(Candidates(ids, few))
            return scores, beam_idx, tokens, raw_logprobs(candidates, tokens, beam_idx)
        totals = totals.reshape(batch, -1)
        best = (-totals).argsort(axis=1, kind="stable")[:, : self._keep]
        flat = best if batch == 1 else best + totals.shape[1] * np.arange(batch)[:, None]
        return totals.take(flat), best // width, ids.ravel().take(flat), few.ravel().take(flat)

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
            scores, tokens = pick(totals, order), pick(ids, order)
            return scores, np.minimum(order // width, self._beams - 1), tokens
        if totals.shape[1] > _SORTED_WHOLE:
            few = np.sort(np.argpartition(-totals, self._keep, axis=1)[:, : self._keep], axis=1)
            best = pick(few, np.argsort(-pick(totals, few), axis=1, kind="stable"))
        else:
            best = np.argsort(-totals, axis=1, kind="stable")[:, : self._keep]
        return pick(totals, best), np.minimum(best // width, self._beams - 1), pick(ids, best)

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
        self._finished_scores = pick(merged, best)
        self._finished = _merge(self._finished, self._continued(beam_idx, tokens), best)
        self._finished_parents = _merge(self._finished_parents, beam_idx, best)
        self._finished_logprobs = _merge(self._finished_logprobs, logprobs, best)
        self._finished_lengths = _merge(self._finished_lengths, lengths, best)
        self._is_finished = _merge(self._is_finished, finishing, best)
        self._any_finished = True

    def _check_done(self, all_ended: bool) -> None:
        penalty = self._config.length_penalty
        if not self._any_finished and penalty >= 0 and (self._live_scores[:, 0] > _LOWEST).all():
            self.done = all_ended  # whatever is found is better than nothing
            return
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
    return pick(np.concatenate([old, new], axis=1), best)


def _lowered(unwanted: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(unwanted, np.float32(_LOWEST), np.float32(0))
