"""Beam search for one utterance: what it goes on with, and what it has found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ...errors import GenerationError
from .continuations import Choice, float32, score_of
from .finish import Cut, Finish
from .finished import LOWEST, Finished, Hypothesis

_TO_SPARE = 1e-3
"""Log-probabilities are 0 at most but for rounding: of all that may come, less than this."""

_SMALLEST = 5e-324
"""Of the positive numbers."""


@dataclass(frozen=True)
class Rules:
    """What is the same for all utterances.

    Attributes:
        prompt: tokens of it.
        ends: tokens that a hypothesis ends with.
        beams: live hypotheses.
        kept: continuations that a step looks at, see `continuations_kept`.
        returned: hypotheses in the end.
        longest: new tokens that a hypothesis may have.
        length_penalty: see `GenerationConfig`.
        early_stopping: see `GenerationConfig`.
        when_settled: see `Stopping`.
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
        """What the score of so many tokens is divided by."""
        try:
            return math.pow(new_tokens, self.length_penalty) or _SMALLEST
        except OverflowError:
            return math.inf


class Live(NamedTuple):
    """Live hypotheses, best first: of each its score, and its last continuation."""

    scores: Sequence[float]
    beams: Sequence[int]
    tokens: Sequence[int]
    logprobs: Sequence[float]


class UtteranceSearch:
    """Live and finished hypotheses of one utterance.

    Attributes:
        live: at present.
        steps: the live ones after every step so far.
        finished: hypotheses.
    """

    def __init__(self, rules: Rules) -> None:
        """Start from a prompt."""
        self._rules = rules
        alike = (0,) * rules.beams
        # Only the first of them may be continued.
        self.live = Live([LOWEST if beam else 0.0 for beam in range(rules.beams)], alike, alike, alike)
        self.steps: list[Live] = []
        self.finished = Finished(rules.beams, rules.returned)
        self.cut: Cut | None = None
        """What ended the search before it was done; then any hypothesis may have been overtaken."""

    @property
    def is_closed(self) -> bool:
        """Whether no continuation may join the finished hypotheses any more."""
        return not self.finished.is_improvable or (self._rules.early_stopping is True and self.finished.is_full)

    def advance(self, choice: Choice, ends: Sequence[Finish | None] | None) -> bool:
        """Go on with the best continuations that do not end; those that do, and are among the best, are finished.

        Args:
            choice: of continuations, `Rules.kept`; as many as there are beams are enough where none of those ends.
            ends: how each of them ends, None where it goes on; None if all go on.

        Returns:
            Whether all end.

        Raises:
            GenerationError: none is possible.
        """
        rules = self._rules
        if not choice[0][0] > -math.inf and not self.is_closed:
            raise GenerationError(
                f"no token is possible at position {rules.prompt + len(self.steps)}: the settings ban all of them, or "
                "the model's logits are not numbers"
            )
        if ends is not None:
            if not self.is_closed:
                self.cut = next((end for end in ends if end in ("time", "stopped")), None)
            if any(ends[: rules.beams]):
                self._finish(choice, ends)
            lowered = _lowered([score for score, _, _, _ in choice], ends)
            pairs = zip(lowered, choice, strict=True)
            choice = [(score, beam, token, logprob) for score, (_, beam, token, logprob) in pairs]
            choice.sort(key=score_of, reverse=True)
        self.live = Live(*zip(*choice[: rules.beams], strict=True))
        self.steps.append(self.live)
        if self.finished.any or rules.length_penalty < 0 or self.live.scores[0] <= LOWEST:
            self._look_ahead()
        return ends is not None and None not in ends

    def path(self, hypothesis: Hypothesis) -> Choice:
        """All its continuations, the first one first."""
        path = [hypothesis.last]
        for step in reversed(self.steps[: max(hypothesis.new_tokens - 1, 0)]):
            beam = path[-1][1]
            path.append((step.scores[beam], step.beams[beam], step.tokens[beam], step.logprobs[beam]))
        return path[: hypothesis.new_tokens][::-1]

    def _finish(self, choice: Choice, ends: Sequence[Finish | None]) -> None:
        finishing = [end is not None and rank < self._rules.beams for rank, end in enumerate(ends)]
        new_tokens = len(self.steps) + 1
        scores = self._divided([score for score, _, _, _ in choice], new_tokens)
        if self.is_closed:
            scores = _lowered(scores, [True] * len(scores))
        scores = _lowered(scores, [not truth for truth in finishing])
        places = zip(scores, finishing, choice, ends, strict=True)
        self.finished.add(
            Hypothesis(score, truth, new_tokens, last, end or "end") for score, truth, last, end in places
        )

    def _look_ahead(self) -> None:
        rules, best, new_tokens = self._rules, self.live.scores[0], len(self.steps)
        always = rules.early_stopping == "never" and rules.length_penalty > 0
        (promising,) = self._divided([best], rules.longest if always else new_tokens)
        best_possible = math.inf
        if rules.when_settled:
            at_best = rules.longest if rules.length_penalty > 0 else new_tokens + 1
            best_possible = (best + _TO_SPARE) / rules.divisor(at_best)
        self.finished.look_ahead(promising, best_possible)

    def _divided(self, scores: Sequence[float], new_tokens: int) -> list[float]:
        """Scores of hypotheses of so many tokens, float32 as in torch."""
        (divisor,) = float32([self._rules.divisor(new_tokens)])
        return float32([score / (divisor or _SMALLEST) for score in scores])


def _lowered(scores: Sequence[float], unwanted: Sequence[object]) -> list[float]:
    pairs = zip(scores, unwanted, strict=True)
    return float32([score + LOWEST if truth else score for score, truth in pairs])
