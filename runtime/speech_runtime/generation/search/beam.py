"""Beam search with the exact semantics of transformers' `GenerationMixin._beam_search`."""

from collections.abc import Sequence
from copy import copy
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...errors import GenerationError
from ..config import GenerationConfig
from .base import Candidates, PerBeam, SearchResult, Tokens
from .beam_hypotheses import LOWEST, FinishedBeam, Rules, UtteranceSearch
from .ranking import Ranking, best_of_all, best_of_sorted, continuations_kept, pick
from .stopping import Cut, Finish, Stopping


class BeamSearch:
    """Beam search for a batch. See `Search`.

    Arithmetic is float32 in the order of transformers, so that ties are broken alike.
    """

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
        self._max_length = max_length
        self._stopping = stopping
        self._generator = generator
        self._forces_end = bool(config.forced_eos_token_ids)
        self._rules = Rules(
            prompt=self._prompt_length,
            ends=frozenset(config.eos_token_ids),
            beams=config.num_beams,
            kept=continuations_kept(config),
            returned=config.num_return_sequences,
            longest=max_length - self._prompt_length,
            length_penalty=config.length_penalty,
            early_stopping=config.early_stopping,
            when_settled=stopping.when_settled,
        )
        self.length = self._written = self._prompt_length
        self._tokens = np.empty((batch, config.num_beams, max_length), dtype=np.int64)
        self._tokens[:, :, : self.length] = prompt[:, None]
        self._utterances = [UtteranceSearch(self._rules) for _ in range(batch)]
        self.done = False

    @property
    def live(self) -> Tokens:
        """See `Search.live`; the array is brought up to date only when it is read."""
        for length in range(self._written, self.length):
            step = length - self._prompt_length
            steps = [utterance.steps[step] for utterance in self._utterances]
            self._tokens = pick(self._tokens, np.array([live.beam_idx for live in steps]))
            self._tokens[:, :, length] = [live.tokens for live in steps]
        self._written = self.length
        return self._tokens[:, :, : self.length]

    @property
    def open_utterances(self) -> NDArray[np.bool_]:
        """See `Search.open_utterances`."""
        return np.array([not utterance.is_closed for utterance in self._utterances])

    @property
    def decided(self) -> list[list[int]]:
        """See `Search.decided`: the tokens that all live and finished hypotheses begin with."""
        prefixes = []
        for row, (live, utterance) in enumerate(zip(self.live, self._utterances, strict=True)):
            alive = [score > LOWEST / 2 for score in utterance.live.scores]
            rivals = live[alive].tolist()
            rivals += [
                self._sequence(row, utterance.path(done)) for done in utterance.finished.best if done.is_finished
            ]
            shortest = min(map(len, rivals))
            same = next((i for i in range(shortest) if any(rival[i] != rivals[0][i] for rival in rivals)), shortest)
            prefixes.append(rivals[0][:same])
        return prefixes

    def advance(self, candidates: Candidates, raw: Candidates, cut: Cut | None) -> tuple[PerBeam, PerBeam]:
        """See `Search.advance`."""
        rules = self._rules
        ends: Sequence[Sequence[Finish | None] | None] = [None] * len(self._utterances)
        is_sorted = candidates.is_sorted and self._generator is None
        if self.length + 1 >= self._max_length:
            cut = "length"
        rankings = self._best(candidates, rules.beams) if is_sorted and not cut and not self._stopping.criteria else []
        if not rankings or self._any_ends(rankings):
            rankings = self._best(candidates, rules.kept) if is_sorted else self._best_of_all(candidates, raw)
            ends = self._ending(rankings, cut)
        all_end = all_full = all_closed = True
        any_open = False
        tokens, beam_idx = [], []
        for utterance, ranking, ending in zip(self._utterances, rankings, ends, strict=True):
            all_end &= utterance.advance(ranking, ending)
            all_full &= utterance.finished.is_full
            all_closed &= utterance.is_closed
            any_open |= utterance.finished.is_improvable
            tokens.append(utterance.live.tokens)
            beam_idx.append(utterance.live.beam_idx)
        self.length += 1
        settled = all_closed and rules.when_settled
        self.done = all_end or not any_open or (all_full and rules.early_stopping is True) or settled
        return tokens, beam_idx

    def for_utterances(self, utterances: NDArray[np.int64]) -> Self:
        """See `Search.for_utterances`."""
        part = copy(self)
        part._tokens = self._tokens[utterances]
        part._utterances = [self._utterances[row] for row in utterances.tolist()]
        return part

    def results(self) -> list[list[SearchResult]]:
        """See `Search.results`."""
        best = [utterance.finished.best[: self._rules.returned] for utterance in self._utterances]
        self._check_found(best)
        return [[self._result(row, hypothesis) for hypothesis in found] for row, found in enumerate(best)]

    def _result(self, row: int, hypothesis: FinishedBeam) -> SearchResult:
        utterance = self._utterances[row]
        path = utterance.path(hypothesis)
        return SearchResult(
            tokens=self._sequence(row, path),
            score=hypothesis.score,
            token_logprobs=[logprob for _, _, _, logprob in path],
            beam_indices=[beam for _, beam, _, _ in path],
            finish=utterance.cut or hypothesis.finish,
        )

    def _sequence(self, row: int, path: Ranking) -> list[int]:
        """Return the prompt of an utterance and its continuations."""
        return [*self._tokens[row, 0, : self._prompt_length].tolist(), *(token for _, _, token, _ in path)]

    def _check_found(self, best: Sequence[Sequence[FinishedBeam]]) -> None:
        """Refuse empty places: they beat all hypotheses that score less, and transformers returns unfinished text."""
        penalty = self._rules.length_penalty
        places = (
            1 if penalty >= 0 else self._rules.returned
        )  # else the others may only fill places after a forced token
        if not all(hypothesis.is_finished for found in best for hypothesis in found[:places]):
            cause = f"length_penalty is {penalty}" if penalty < 0 else "the settings lower the scores of all tokens"
            remedy = "length_penalty (--length-penalty)" if penalty < 0 else "biases"
            raise GenerationError(
                f"{cause}: a hypothesis scores {LOWEST:g} or less, which beam search takes for an empty place; "
                f"set {remedy} nearer to 0"
            )

    @property
    def _scores(self) -> list[Sequence[float]]:
        return [utterance.live.scores for utterance in self._utterances]

    def _best(self, candidates: Candidates, count: int) -> list[Ranking]:
        return best_of_sorted(candidates, self._scores, count)

    def _best_of_all(self, candidates: Candidates, raw: Candidates) -> list[Ranking]:
        scores = np.array(self._scores, dtype=np.float32)
        return best_of_all(candidates, raw, scores, self._rules.kept, self._generator)

    def _any_ends(self, rankings: Sequence[Ranking]) -> bool:
        ends = self._rules.ends
        for ranking in rankings:  # not `any`: a generator would double the time of this loop
            for _, _, token, _ in ranking:
                if token in ends:
                    return True
        return False

    def _ending(self, rankings: Sequence[Ranking], cut: Cut | None) -> list[list[Finish | None]]:
        """Return how each continuation ends its sequence, None where it goes on."""
        tokens = [[token for _, _, token, _ in ranking] for ranking in rankings]
        forced = cut == "length" and self._forces_end  # then the model did not choose the end itself
        ends = [[token in self._rules.ends and not forced for token in row] for row in tokens]
        if self._stopping.criteria:
            beam_idx = np.array([[beam for _, beam, _, _ in ranking] for ranking in rankings])
            sequences = np.concatenate([pick(self.live, beam_idx), np.array(tokens)[:, :, None]], axis=2)
            ends = (self._stopping.ends(sequences) | np.array(ends)).tolist()
        return [["end" if end else cut for end in row] for row in ends]
