"""Settings that only ban or force tokens.

Banning is exact on the few best candidates; forcing takes the whole vocabulary, for the one step at which it happens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..search.candidates import Candidates
from ..search.state import is_among

_FEW = 8


@dataclass(frozen=True)
class Ban:
    """Tokens that must not come next, while `when` says so of the present length, the prompt included."""

    tokens: tuple[int, ...]
    when: Callable[[int], bool]

    def __call__(self, candidates: Candidates, length: int) -> Candidates:
        """The candidates that are left, the banned ones with a score of -inf."""
        if not self.when(length):
            return candidates
        tokens = np.array(self.tokens)
        banned = is_among(candidates.ids, tokens) if tokens.size <= _FEW else np.isin(candidates.ids, tokens)
        return candidates.with_scores(np.where(banned, np.float32(-np.inf), candidates.scores))


@dataclass(frozen=True)
class Force:
    """Tokens of which one must come next where the present length is `at`."""

    tokens: tuple[int, ...]
    at: int

    def __call__(self, candidates: Candidates, length: int) -> Candidates:
        """The forced tokens with a score of 0, all others of the whole vocabulary with -inf."""
        if length != self.at:
            return candidates
        scores = np.full_like(candidates.scores, -np.inf)
        scores[:, :, list(self.tokens)] = 0
        return candidates.with_scores(scores)


Constraint = Ban | Force


def most_banned(constraints: Sequence[Constraint]) -> int:
    """How many candidates of one beam `constraints` may take away at most."""
    return len({token for constraint in constraints if isinstance(constraint, Ban) for token in constraint.tokens})
