"""The live and the finished beams of a beam search."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ...errors import GenerationError
from .ranking import Continuation, Ranking, float32, score_of
from .stopping import Cut, Finish

LOWEST = -1e9
"""Number that transformers adds to the score of a hypothesis that must not be chosen."""

_ROUNDING_SLACK = 1e-3
"""Amount by which the rounded sum of all log-probabilities still to come may exceed 0."""

_SMALLEST = 5e-324
"""Smallest positive number."""


@dataclass(frozen=True)
class Rules:
    """Settings of a beam search.

    Attributes:
        prompt: Number of tokens of the prompt.
        ends: Tokens that end a hypothesis.
        beams: Number of live beams.
        kept: Number of continuations that a step looks at; see `continuations_kept`.
        returned: Number of hypotheses to return.
        longest: Largest number of new tokens of a hypothesis.
        length_penalty: As in `GenerationConfig`.
        early_stopping: As in `GenerationConfig`.
        when_settled: As in `Stopping`.
    """

    prompt: int
    ends: frozenset[int]
    beams: int
    kept: int
    returned: int
    longest: int
    length_penalty: float
    early_stopping: bool | Literal["never"]
    when_settled: bool

    def divisor(self, new_tokens: int) -> float:
        """Return the divisor of the score of a hypothesis with so many new tokens."""
        try:
            return math.pow(new_tokens, self.length_penalty) or _SMALLEST
        except OverflowError:
            return math.inf


class LiveBeams(NamedTuple):
    """Live beams after a step, best first: their scores, and the columns of their last continuations."""

    scores: Sequence[float]
    beam_idx: Sequence[int]
    tokens: Sequence[int]
    logprobs: Sequence[float]


class FinishedBeam(NamedTuple):
    """A place among the best finished hypotheses.

    Attributes:
        score: Score that places are sorted by.
        is_finished: True if there is a hypothesis in this place; False if it is empty.
        new_tokens: Number of tokens after the prompt.
        last: Last continuation; `BeamHypotheses.path` finds the ones before.
        finish: How the hypothesis ended.
    """

    score: float
    is_finished: bool
    new_tokens: int
    last: Continuation
    finish: Finish


class FinishedBeams:
    """Best finished hypotheses, as many places as there are beams.

    Attributes:
        best: Places, best first; an empty place holds the prompt alone and scores `LOWEST`.
        any: True if anything was added.
        is_full: True if no place is empty.
        is_improvable: False once no live beam can improve the result.
    """

    def __init__(self, beams: int, returned: int) -> None:
        """Start with `beams` empty places, of which the first `returned` are the result."""
        self.best = [FinishedBeam(LOWEST, False, 0, (0.0, 0, 0, 0.0), "end")] * beams
        self.any = self.is_full = False
        self.is_improvable = True
        self._returned = returned

    def add(self, hypotheses: Iterable[FinishedBeam]) -> None:
        """Keep the best hypotheses; of equal ones, those that came first."""
        places = len(self.best)
        self.best = sorted([*self.best, *hypotheses], key=_score, reverse=True)[:places]
        self.any, self.is_full = True, all(hypothesis.is_finished for hypothesis in self.best)

    def look_ahead(self, promising: float, best_possible: float) -> None:
        """Update `is_improvable`.

        Args:
            promising: Score that transformers compares with the worst hypothesis.
            best_possible: Score that no live beam can exceed, however it continues.
        """
        worst = self.best[-1].score
        beats = any(promising > (worst if hypothesis.is_finished else LOWEST) for hypothesis in self.best)
        last = self.best[self._returned - 1]
        self.is_improvable = self.is_improvable and beats and not (last.is_finished and best_possible < last.score)


class BeamHypotheses:
    """The hypotheses of an utterance, and the rules by which they go on and end.

    Attributes:
        live: Live beams at present.
        steps: Live beams after every step so far.
        finished: Finished hypotheses.
        cut: Reason why the search ended before it was done, if it did; any hypothesis might have been overtaken.
    """

    def __init__(self, rules: Rules) -> None:
        """Start with the prompt in every beam."""
        self._rules = rules
        alike = (0,) * rules.beams
        # Only the first of the equal beams may be continued.
        self.live = LiveBeams([LOWEST if beam else 0.0 for beam in range(rules.beams)], alike, alike, alike)
        self.steps: list[LiveBeams] = []
        self.finished = FinishedBeams(rules.beams, rules.returned)
        self.cut: Cut | None = None

    @property
    def is_closed(self) -> bool:
        """True if no continuation can join the finished hypotheses any more."""
        return not self.finished.is_improvable or (self._rules.early_stopping is True and self.finished.is_full)

    def advance(self, ranking: Ranking, ends: Sequence[Finish | None] | None) -> bool:
        """Continue the best beams that do not end; those that end, and rank among the best, become finished ones.

        Args:
            ranking: The best `Rules.kept` continuations; as many as there are beams suffice where none of them ends.
            ends: How each of them ends, None where it goes on; None if all go on.

        Returns:
            True if all end.

        Raises:
            GenerationError: No continuation is possible.
        """
        rules = self._rules
        if not ranking[0][0] > -math.inf and not self.is_closed:
            raise GenerationError(
                f"no token is possible at position {rules.prompt + len(self.steps)}: the settings ban all of them, or "
                "the model's logits are not numbers"
            )
        if ends is not None:
            if not self.is_closed:
                self.cut = next((end for end in ends if end in ("time", "stopped")), None)
            if any(ends[: rules.beams]):
                self._finish(ranking, ends)
            lowered = _lowered([score for score, _, _, _ in ranking], ends)
            pairs = zip(lowered, ranking, strict=True)
            ranking = [(score, beam, token, logprob) for score, (_, beam, token, logprob) in pairs]
            ranking.sort(key=score_of, reverse=True)
        self.live = LiveBeams(*zip(*ranking[: rules.beams], strict=True))
        self.steps.append(self.live)
        if self.finished.any or rules.length_penalty < 0 or self.live.scores[0] <= LOWEST:
            self._look_ahead()
        return ends is not None and None not in ends

    def path(self, hypothesis: FinishedBeam) -> Ranking:
        """Return all continuations of a hypothesis, the first one first."""
        path = [hypothesis.last]
        for step in reversed(self.steps[: max(hypothesis.new_tokens - 1, 0)]):
            beam = path[-1][1]
            path.append((step.scores[beam], step.beam_idx[beam], step.tokens[beam], step.logprobs[beam]))
        return path[: hypothesis.new_tokens][::-1]

    def _finish(self, ranking: Ranking, ends: Sequence[Finish | None]) -> None:
        finishing = [end is not None and rank < self._rules.beams for rank, end in enumerate(ends)]
        new_tokens = len(self.steps) + 1
        scores = self._divided([score for score, _, _, _ in ranking], new_tokens)
        if self.is_closed:
            scores = _lowered(scores, [True] * len(scores))
        scores = _lowered(scores, [not truth for truth in finishing])
        places = zip(scores, finishing, ranking, ends, strict=True)
        self.finished.add(
            FinishedBeam(score, truth, new_tokens, last, end or "end") for score, truth, last, end in places
        )

    def _look_ahead(self) -> None:
        rules, best, new_tokens = self._rules, self.live.scores[0], len(self.steps)
        at_full_length = rules.early_stopping == "never" and rules.length_penalty > 0
        (promising,) = self._divided([best], rules.longest if at_full_length else new_tokens)
        best_possible = math.inf
        if rules.when_settled:
            best_length = rules.longest if rules.length_penalty > 0 else new_tokens + 1
            best_possible = (best + _ROUNDING_SLACK) / rules.divisor(best_length)
        self.finished.look_ahead(promising, best_possible)

    def _divided(self, scores: Sequence[float], new_tokens: int) -> list[float]:
        """Return scores of hypotheses with so many new tokens, rounded to float32 as in torch."""
        (divisor,) = float32([self._rules.divisor(new_tokens)])
        return float32([score / (divisor or _SMALLEST) for score in scores])


def _score(hypothesis: FinishedBeam) -> float:
    return hypothesis.score


def _lowered(scores: Sequence[float], unwanted: Sequence[object]) -> list[float]:
    pairs = zip(scores, unwanted, strict=True)
    return float32([score + LOWEST if truth else score for score, truth in pairs])
