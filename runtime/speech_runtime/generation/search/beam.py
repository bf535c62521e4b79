"""Beam search over candidates, with the very semantics of transformers' `GenerationMixin._beam_search`."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...errors import GenerationError
from ..config import GenerationConfig
from .candidates import Candidates
from .continuations import Choice, Continuation, best_of_all, best_of_sorted, continuations_kept
from .finish import Cut, Finish
from .finished import LOWEST, Hypothesis
from .state import Hypotheses, Rows, Tokens, pick, take_rows
from .stopping import Stopping
from .utterance import Rules, UtteranceSearch


class BeamSearch:
    """Live and finished hypotheses of a batch.

    Feed it the candidates of each step with `advance` and decode what it says next, until it is `done`. Arithmetic is
    float32 in transformers' order, so that ties fall alike.
    """

    without_rows: frozenset[str] = frozenset()

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
        self._fill = config.fill_token_id
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
        self._tokens = np.full((batch, config.num_beams, max_length), self._fill, dtype=np.int64)
        self._tokens[:, :, : self.length] = prompt[:, None]
        self._utterances = [UtteranceSearch(self._rules) for _ in range(batch)]
        self.done = False

    @property
    def live(self) -> Tokens:
        """See `Search.live`; written down when it is asked for."""
        for length in range(self._written, self.length):
            step = length - self._prompt_length
            steps = [utterance.steps[step] for utterance in self._utterances]
            self._tokens = pick(self._tokens, np.array([live.beams for live in steps]))
            self._tokens[:, :, length] = [live.tokens for live in steps]
        self._written = self.length
        return self._tokens[:, :, : self.length]

    @property
    def open_rows(self) -> NDArray[np.bool_]:
        """See `Search.open_rows`."""
        return np.array([not utterance.is_closed for utterance in self._utterances])

    @property
    def decided(self) -> list[list[int]]:
        """See `Search.decided`: what all live and finished hypotheses begin with."""
        prefixes = []
        for row, (live, utterance) in enumerate(zip(self.live, self._utterances, strict=True)):
            alive = [score > LOWEST / 2 for score in utterance.live.scores]
            done = [utterance.path(one) for one in utterance.finished.best if one.is_finished]
            rivals = np.array([*live[alive], *(self._sequence(row, path, self.length) for path in done)])
            same = (rivals == rivals[:1]).all(axis=0)
            prefixes.append(rivals[0, : self.length if same.all() else int(same.argmin())].tolist())
        return prefixes

    def advance(self, candidates: Candidates, raw: Candidates, cut: Cut | None) -> tuple[Rows, Rows]:
        """See `Search.advance`."""
        rules = self._rules
        ends: Sequence[Sequence[Finish | None] | None] = [None] * len(self._utterances)
        is_sorted = candidates is raw and not raw.whole and self._generator is None
        if self.length + 1 >= self._max_length:
            cut = "length"
        choices = self._best(candidates, rules.beams) if is_sorted and not cut and not self._stopping.criteria else []
        if not choices or self._any_ends(choices):
            choices = self._best(candidates, rules.kept) if is_sorted else self._best_of_all(candidates, raw)
            ends = self._ending(choices, cut)
        all_end = all_full = all_closed = True
        any_open = False
        tokens, beams = [], []
        for utterance, choice, ending in zip(self._utterances, choices, ends, strict=True):
            all_end &= utterance.advance(choice, ending)
            all_full &= utterance.finished.is_full
            all_closed &= utterance.is_closed
            any_open |= utterance.finished.is_improvable
            tokens.append(utterance.live.tokens)
            beams.append(utterance.live.beams)
        self.length += 1
        settled = all_closed and rules.when_settled
        self.done = all_end or not any_open or (all_full and rules.early_stopping is True) or settled
        return tokens, beams

    def rows(self, rows: Tokens) -> Self:
        """See `Search.rows`."""
        kept: Self = take_rows(self, rows)
        return kept

    def result(self) -> Hypotheses:
        """See `Search.result`."""
        best = [utterance.finished.best[: self._rules.returned] for utterance in self._utterances]
        self._check_found(best)
        pairs = zip(self._utterances, best, strict=True)
        paths = [[utterance.path(hypothesis) for hypothesis in row] for utterance, row in pairs]
        most = max(len(path) for row in paths for path in row)

        def filled(of: Callable[[Continuation], float], filler: float) -> list[list[list[float]]]:
            return [[[*map(of, path), *[filler] * (most - len(path))] for path in row] for row in paths]

        length = self._prompt_length + most
        sequences = [[self._sequence(i, path, length) for path in row] for i, row in enumerate(paths)]
        return Hypotheses(
            sequences=np.array(sequences, dtype=np.int64),
            lengths=np.array([[self._prompt_length + len(path) for path in row] for row in paths]),
            scores=np.array([[hypothesis.score for hypothesis in row] for row in best], dtype=np.float32),
            token_logprobs=np.array(filled(itemgetter(3), 0.0), dtype=np.float32),
            beam_indices=np.array(filled(itemgetter(1), -1), dtype=np.int64),
            finished=np.array(
                [
                    [utterance.cut or hypothesis.finish for hypothesis in row]
                    for utterance, row in zip(self._utterances, best, strict=True)
                ]
            ),
        )

    def _check_found(self, best: Sequence[Sequence[Hypothesis]]) -> None:
        """An empty place beats all hypotheses that score less, and has no text: transformers returns what it began."""
        penalty = self._rules.length_penalty
        places = 1 if penalty >= 0 else self._rules.returned  # else others may be what fills up a forced beginning
        if not all(hypothesis.is_finished for row in best for hypothesis in row[:places]):
            cause = f"length_penalty is {penalty}" if penalty < 0 else "the settings lower the scores of all tokens"
            remedy = "length_penalty (--length-penalty)" if penalty < 0 else "biases"
            raise GenerationError(
                f"{cause}: a hypothesis scores {LOWEST:g} or less, which beam search takes for none; "
                f"set {remedy} nearer to 0"
            )

    def _sequence(self, row: int, path: Choice, length: int) -> list[int]:
        """The prompt of an utterance and what it is continued with, filled up to `length`."""
        prompt = self._tokens[row, 0, : self._prompt_length].tolist()
        missing = length - self._prompt_length - len(path)
        return [*prompt, *(token for _, _, token, _ in path), *[self._fill] * missing]

    @property
    def _scores(self) -> list[Sequence[float]]:
        return [utterance.live.scores for utterance in self._utterances]

    def _best(self, candidates: Candidates, count: int) -> list[Choice]:
        return best_of_sorted(candidates, self._scores, count)

    def _best_of_all(self, candidates: Candidates, raw: Candidates) -> list[Choice]:
        scores = np.array(self._scores, dtype=np.float32)
        return best_of_all(candidates, raw, scores, self._rules.kept, self._generator)

    def _any_ends(self, choices: Sequence[Choice]) -> bool:
        ends = self._rules.ends
        for choice in choices:  # not `any`: a generator takes as long as all else here
            for _, _, token, _ in choice:
                if token in ends:
                    return True
        return False

    def _ending(self, choices: Sequence[Choice], cut: Cut | None) -> list[list[Finish | None]]:
        """How each continuation ends its sequence, None where it goes on."""
        tokens = [[token for _, _, token, _ in choice] for choice in choices]
        forced = cut == "length" and self._forces_end  # the end is not the model's word
        ends = [[token in self._rules.ends and not forced for token in row] for row in tokens]
        if self._stopping.criteria:
            beams = np.array([[beam for _, beam, _, _ in choice] for choice in choices])
            sequences = np.concatenate([pick(self.live, beams), np.array(tokens)[:, :, None]], axis=2)
            ends = (self._stopping.of(sequences) | np.array(ends)).tolist()
        return [["end" if end else cut for end in row] for row in ends]
