"""Beam search with the exact semantics of transformers' `GenerationMixin._beam_search`."""

from collections.abc import Sequence

import numpy as np

from ...errors import GenerationError
from ..config import GenerationConfig
from .base import Candidates, SearchResult, Tokens
from .beam_hypotheses import LOWEST, BeamHypotheses, FinishedBeam, Rules
from .ranking import Ranking, best_of_all, best_of_sorted, continuations_kept, pick
from .stopping import Cut, Finish, Stopping


class BeamSearch:
    """Beam search for one utterance. See `Search`.

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
        """Start from `prompt` int64 [tokens], the start token included."""
        self._prompt: list[int] = prompt.tolist()
        self._max_length = max_length
        self._stopping = stopping
        self._generator = generator
        self._forces_end = bool(config.forced_eos_token_ids)
        self._rules = Rules(
            prompt=len(self._prompt),
            ends=frozenset(config.eos_token_ids),
            beams=config.num_beams,
            kept=continuations_kept(config),
            returned=config.num_return_sequences,
            longest=max_length - len(self._prompt),
            length_penalty=config.length_penalty,
            early_stopping=config.early_stopping,
            when_settled=stopping.when_settled,
        )
        self._hypotheses = BeamHypotheses(self._rules)
        self._tokens = np.repeat(prompt[None, None], config.num_beams, axis=1)
        self.length = len(self._prompt)
        self.done = False

    @property
    def live(self) -> Tokens:
        """See `Search.live`; the array is brought up to date only when it is read."""
        written = self._tokens.shape[2]
        if written < self.length:
            tokens = np.empty((1, self._rules.beams, self.length), dtype=np.int64)
            order, steps = np.arange(self._rules.beams), self._hypotheses.steps[written - len(self._prompt) :]
            for position in range(self.length - 1, written - 1, -1):
                live = steps[position - written]
                tokens[0, :, position] = np.array(live.tokens)[order]
                order = np.array(live.beam_idx)[order]
            tokens[:, :, :written] = self._tokens[:, order]
            self._tokens = tokens
        return self._tokens

    @property
    def decided(self) -> list[int]:
        """See `Search.decided`: the tokens that all live and finished hypotheses begin with."""
        found = self._hypotheses
        alive = [score > LOWEST / 2 for score in found.live.scores]
        rivals = self.live[0, alive].tolist()
        rivals += [self._sequence(found.path(done)) for done in found.finished.best if done.is_finished]
        shortest = min(map(len, rivals))
        same = next((i for i in range(shortest) if any(rival[i] != rivals[0][i] for rival in rivals)), shortest)
        return rivals[0][:same]  # type: ignore[no-any-return]

    def advance(self, candidates: Candidates, raw: Candidates, cut: Cut | None) -> tuple[Sequence[int], Sequence[int]]:
        """See `Search.advance`."""
        rules, found = self._rules, self._hypotheses
        is_sorted = candidates.is_sorted and self._generator is None
        if self.length + 1 >= self._max_length:
            cut = "length"
        few = is_sorted and not cut and not self._stopping.criteria
        ranking = best_of_sorted(candidates, found.live.scores, rules.beams) if few else []
        ends: Sequence[Finish | None] | None = None
        if not ranking or not rules.ends.isdisjoint([token for _, _, token, _ in ranking]):
            ranking = (
                best_of_sorted(candidates, found.live.scores, rules.kept)
                if is_sorted
                else best_of_all(candidates, raw, found.live.scores, rules.kept, self._generator)
            )
            ends = self._ending(ranking, cut)
        all_end = found.advance(ranking, ends)
        self.length += 1
        self.done = all_end or found.is_closed
        return found.live.tokens, found.live.beam_idx

    def results(self) -> list[SearchResult]:
        """See `Search.results`."""
        best = self._hypotheses.finished.best[: self._rules.returned]
        self._check_found(best)
        return [self._result(hypothesis) for hypothesis in best]

    def _result(self, hypothesis: FinishedBeam) -> SearchResult:
        path = self._hypotheses.path(hypothesis)
        return SearchResult(
            tokens=self._sequence(path),
            score=hypothesis.score,
            token_logprobs=[logprob for _, _, _, logprob in path],
            beam_indices=[beam for _, beam, _, _ in path],
            finish=self._hypotheses.cut or hypothesis.finish,
        )

    def _sequence(self, path: Ranking) -> list[int]:
        """Return the prompt and its continuations."""
        return [*self._prompt, *(token for _, _, token, _ in path)]

    def _check_found(self, best: Sequence[FinishedBeam]) -> None:
        """Refuse empty places: they beat all hypotheses that score less, and transformers returns unfinished text."""
        penalty = self._rules.length_penalty
        places = (
            1 if penalty >= 0 else self._rules.returned
        )  # else the others may only fill places after a forced token
        if not all(hypothesis.is_finished for hypothesis in best[:places]):
            cause = f"length_penalty is {penalty}" if penalty < 0 else "the settings lower the scores of all tokens"
            remedy = "length_penalty (--length-penalty)" if penalty < 0 else "biases"
            raise GenerationError(
                f"{cause}: a hypothesis scores {LOWEST:g} or less, which beam search takes for an empty place; "
                f"set {remedy} nearer to 0"
            )

    def _ending(self, ranking: Ranking, cut: Cut | None) -> list[Finish | None]:
        """Return how each continuation ends its sequence, None where it goes on."""
        tokens = [token for _, _, token, _ in ranking]
        forced = cut == "length" and self._forces_end  # then the model did not choose the end itself
        ends = [token in self._rules.ends and not forced for token in tokens]
        if self._stopping.criteria:
            beam_idx = np.array([[beam for _, beam, _, _ in ranking]])
            sequences = np.concatenate([pick(self.live, beam_idx), np.array(tokens)[None, :, None]], axis=2)
            ends = (self._stopping.ends(sequences)[0] | np.array(ends)).tolist()
        return ["end" if end else cut for end in ends]
