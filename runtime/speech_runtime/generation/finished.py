"""The best finished hypotheses of one utterance in a beam search."""

from collections.abc import Sequence
from typing import NamedTuple

from .state import Tokens

LOWEST = -1e9
"""What transformers adds to the score of a hypothesis that must not be chosen."""


class Hypothesis(NamedTuple):
    """A place among the best, and what is in it.

    Attributes:
        score: it is sorted by.
        is_finished: whether there is a finished hypothesis in it.
        tokens: int64 [longest], filled up behind the end.
        length: of the tokens, the prompt included.
        parent: the beam that the last token was chosen on.
        logprob: of the last token, the model's own.
    """

    score: float
    is_finished: bool
    tokens: Tokens
    length: int
    parent: int = 0
    logprob: float = 0.0


class Finished:
    """As many as there are beams, best first; and whether a live one may still change anything about them.

    Attributes:
        best: the hypotheses; places that are empty are behind all that is any good.
        is_improvable: whether it is not settled yet that none will.
    """

    def __init__(self, beams: int, returned: int, prompt: Tokens, length: int) -> None:
        """Start with empty places, whose tokens are a prompt of `length`; so many of them are `returned` in the end."""
        self.best = [Hypothesis(LOWEST, False, prompt, length)] * beams
        self.is_improvable = True
        self._returned = returned

    @property
    def is_full(self) -> bool:
        """Whether no place is empty."""
        return all(hypothesis.is_finished for hypothesis in self.best)

    def add(self, hypotheses: Sequence[Hypothesis]) -> None:
        """Keep the best; of equals, those that were there first."""
        places = len(self.best)
        self.best = sorted([*self.best, *hypotheses], key=_score, reverse=True)[:places]

    def look_ahead(self, promising: float, best_possible: float) -> None:
        """Settle whether a live hypothesis may become better than the worst, or than those that are returned.

        Args:
            promising: a score that transformers compares with the worst.
            best_possible: what no live hypothesis can get beyond, whatever it goes on with.
        """
        worst = self.best[-1].score
        beats = any(promising > (worst if hypothesis.is_finished else LOWEST) for hypothesis in self.best)
        last = self.best[self._returned - 1]
        self.is_improvable = self.is_improvable and beats and not (last.is_finished and best_possible < last.score)


def _score(hypothesis: Hypothesis) -> float:
    return hypothesis.score
