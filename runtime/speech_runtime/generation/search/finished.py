"""The best finished hypotheses of one utterance in a beam search."""

from collections.abc import Iterable
from typing import NamedTuple

from .continuations import Continuation
from .finish import Finish

LOWEST = -1e9
"""What transformers adds to the score of a hypothesis that must not be chosen."""


class Hypothesis(NamedTuple):
    """A place among the best, and what is in it.

    Attributes:
        score: it is sorted by.
        is_finished: whether there is a finished hypothesis in it.
        new_tokens: that it has behind the prompt.
        last: of its continuations.
        finish: how it ended.
    """

    score: float
    is_finished: bool
    new_tokens: int
    last: Continuation
    finish: Finish


class Finished:
    """As many as there are beams, best first; and whether a live one may still change anything about them.

    Attributes:
        best: the hypotheses; places that are empty, with nothing but the prompt, are behind all that is any good.
        any: whether anything was added.
        is_full: whether no place is empty.
        is_improvable: whether it is not settled yet that none will.
    """

    def __init__(self, beams: int, returned: int) -> None:
        """Start with empty places; so many of them are `returned` in the end."""
        self.best = [Hypothesis(LOWEST, False, 0, (0.0, 0, 0, 0.0), "end")] * beams
        self.any = self.is_full = False
        self.is_improvable = True
        self._returned = returned

    def add(self, hypotheses: Iterable[Hypothesis]) -> None:
        """Keep the best; of equals, those that were there first."""
        places = len(self.best)
        self.best = sorted([*self.best, *hypotheses], key=_score, reverse=True)[:places]
        self.any, self.is_full = True, all(hypothesis.is_finished for hypothesis in self.best)

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
