"""Beam search over candidates, with the very semantics of transformers' `GenerationMixin._beam_search`."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..errors import GenerationError
from .candidates import Candidates
from .config import GenerationConfig
from .finished import LOWEST, Finished, Hypothesis
from .sampling import sample_without_replacement
from .state import Hypotheses, Tokens, all_of, any_of, is_among, pick, raw_logprobs, take_rows
from .stopping import Stopping

_TO_SPARE = 1e-3
"""Log-probabilities are 0 at most but for rounding: of all that may come, less than this."""

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
        generator: np.random.Generator | None,
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
        self._live_scores[:, 1:] = LOWEST  # the beams start alike: only the first one may be continued
        # Of every step, the beams that its tokens were chosen on and their log-probabilities: [batch, step, beams].
        self._parents = np.zeros((batch, new, self._beams), dtype=np.int64)
        self._logprobs = np.zeros((batch, new, self._beams), dtype=np.float32)
        self._finished = [
            Finished(self._beams, config.num_return_sequences, live[0], self.length) for live in self._live
        ]
        self._any_finished = False
        self.done = False

    @property
    def live(self) -> Tokens:
        """See `Search.live`."""
        return self._live[:, :, : self.length]

    @property
    def open_rows(self) -> NDArray[np.bool_]:
        """See `Search.open_rows`."""
        return np.array([not self._is_closed(finished) for finished in self._finished])

    @property
    def decided(self) -> list[list[int]]:
        """See `Search.decided`: what all live and finished hypotheses begin with."""
        prefixes = []
        for live, finished, scores in zip(self.live, self._finished, self._live_scores, strict=True):
            done = [hypothesis.tokens[: self.length] for hypothesis in finished.best if hypothesis.is_finished]
            rivals = np.array([*live[scores > LOWEST / 2], *done])
            same = (rivals == rivals[:1]).all(axis=0)
            prefixes.append(rivals[0, : self.length if same.all() else int(same.argmin())].tolist())
        return prefixes

    def advance(self, candidates: Candidates, raw: Candidates, last: bool) -> tuple[Tokens, Tokens]:
        """See `Search.advance`."""
        if candidates is raw and not raw.whole and self._generator is None:
            scores, beam_idx, tokens, logprobs = self._best_of_sorted(candidates)
        else:
            scores, beam_idx, tokens = self._best_continuations(candidates)
            logprobs = raw_logprobs(raw, tokens, beam_idx)
        if not all_of(scores[:, 0] > LOWEST):
            self._check_possible(scores)
        ends = is_among(tokens, self._eos)
        if self._stopping.criteria:
            ends |= self._stopping.of(self._continued(beam_idx, tokens)[:, :, : self.length + 1])
        if last or self.length + 1 >= self._max_length:
            ends[:] = True

        all_ended = False
        if any_of(ends):
            all_ended = all_of(ends)
            if any_of(ends[:, : self._beams]):
                self._finish(ends, scores, beam_idx, tokens, logprobs)
            live_scores = _lowered(scores, ends)
            best = (-live_scores).argsort(axis=1, kind="stable")[:, : self._beams]
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
        best = [finished.best[: self._config.num_return_sequences] for finished in self._finished]
        lengths = np.array([[hypothesis.length for hypothesis in row] for row in best])
        longest = int(lengths.max())
        token_logprobs = np.zeros((*lengths.shape, longest - self._prompt_length), dtype=np.float32)
        beam_indices = np.full(token_logprobs.shape, -1)
        for row, hypotheses in enumerate(best):
            parents, logprobs = self._parents[row].tolist(), self._logprobs[row].tolist()
            for rank, hypothesis in enumerate(hypotheses):
                # Traced back from its last token.
                beam, logprob = hypothesis.parent, hypothesis.logprob
                for step in range(hypothesis.length - self._prompt_length - 1, -1, -1):
                    beam_indices[row, rank, step], token_logprobs[row, rank, step] = beam, logprob
                    logprob, beam = logprobs[step - 1][beam], parents[step - 1][beam]
        return Hypotheses(
            sequences=np.array([[hypothesis.tokens[:longest] for hypothesis in row] for row in best]),
            lengths=lengths,
            scores=np.array([[hypothesis.score for hypothesis in row] for row in best], dtype=np.float32),
            token_logprobs=token_logprobs,
            beam_indices=beam_indices,
        )

    def _check_possible(self, scores: NDArray[np.float32]) -> None:
        """Check that every utterance that is not closed has a continuation.

        Raises:
            GenerationError: one has none.
        """
        possible = scores[:, 0] > -np.inf
        if not all_of(possible | ~self.open_rows):
            raise GenerationError(
                f"no token is possible at position {self.length}: the settings ban all of them, or the model's logits "
                "are not numbers"
            )

    def _continued(self, beam_idx: Tokens, tokens: Tokens) -> Tokens:
        sequences = pick(self._live, beam_idx)
        sequences[:, :, self.length] = tokens
        return sequences

    def _is_closed(self, finished: Finished) -> bool:
        """Whether no continuation may join the finished hypotheses of an utterance any more."""
        return not finished.is_improvable or (self._early_stopping is True and finished.is_full)

    def _best_of_sorted(
        self, candidates: Candidates
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """As `_best_continuations`, with log-probabilities, where the candidates of each beam come best first.

        Those behind the `_keep` best of their own beam cannot be among the `_keep` best of all; while the beams are
        alike, only the first of them may be continued.
        """
        batch, alike, width = candidates.ids.shape
        width = min(width, self._keep)
        few, ids = candidates.scores[:, :, :width], candidates.ids[:, :, :width]
        totals = few + self._live_scores[:, :alike, None]
        if totals.size < batch * self._keep:
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
        if self._generator is not None:
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
        ends: NDArray[np.bool_],
        scores: NDArray[np.float32],
        beam_idx: Tokens,
        tokens: Tokens,
        logprobs: NDArray[np.float32],
    ) -> None:
        """Let the continuations that end here, and are among the best, join the finished hypotheses."""
        self._any_finished = True
        scores = _penalised(scores, (self.length + 1 - self._prompt_length) ** self._config.length_penalty)
        closed = np.array([self._is_closed(finished) for finished in self._finished])
        finishing = ends & (np.arange(ends.shape[1]) < self._beams)
        scores = _lowered(_lowered(scores, closed[:, None]), ~finishing)
        sequences = self._continued(beam_idx, tokens)
        for finished, *continuations in zip(
            *(self._finished, scores.tolist(), finishing.tolist(), sequences, beam_idx.tolist(), logprobs.tolist()),
            strict=True,
        ):
            finished.add(
                [
                    Hypothesis(score, is_finished, sequence, self.length + 1, parent, logprob)
                    for score, is_finished, sequence, parent, logprob in zip(*continuations, strict=True)
                ]
            )

    def _check_done(self, all_ended: bool) -> None:
        penalty = self._config.length_penalty
        if not self._any_finished and penalty >= 0 and all_of(self._live_scores[:, 0] > LOWEST):
            self.done = all_ended  # whatever is found is better than nothing
            return
        new_tokens = self.length - self._prompt_length
        if self._early_stopping == "never" and penalty > 0.0:
            new_tokens = self._max_length - self._prompt_length
        promising = _penalised(self._live_scores[:, 0], new_tokens**penalty)
        for finished, *scores in zip(self._finished, promising.tolist(), self._best_possible(), strict=True):
            finished.look_ahead(*scores)
        all_full = self._early_stopping is True and all(finished.is_full for finished in self._finished)
        self.done = all_ended or all_full or not any(finished.is_improvable for finished in self._finished)

    def _best_possible(self) -> list[float]:
        """What no live hypothesis of each utterance can get beyond, whatever it goes on with."""
        if not self._stopping.when_settled:
            return [np.inf] * len(self._live_scores)
        penalty = self._config.length_penalty
        least, most = self.length + 1 - self._prompt_length, self._max_length - self._prompt_length
        with np.errstate(over="ignore"):
            divisor = np.float64(most if penalty > 0 else least) ** penalty
        return [float((score + _TO_SPARE) / divisor) for score in self._live_scores[:, 0].tolist()]


def continuations_kept(config: GenerationConfig) -> int:
    """Continuations of an utterance that a step keeps: enough to go on where the best ones all end."""
    return max(2, 1 + len(config.eos_token_ids)) * config.num_beams


def _penalised(scores: NDArray[np.float32], penalty: float) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # of the lowest numbers there are, as in torch
        return scores / np.float32(penalty)


def _lowered(scores: NDArray[np.float32], unwanted: NDArray[np.bool_]) -> NDArray[np.float32]:
    lowered: NDArray[np.float32] = scores + np.multiply(unwanted, LOWEST, dtype=np.float32)
    return lowered
