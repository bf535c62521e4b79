"""Settings that only ban or force tokens.

Banning is exact on the few best candidates while enough of them are left. Forcing needs the whole vocabulary, at the
one step at which it happens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..search.base import Candidates, Tokens


@dataclass(frozen=True)
class Ban:
    """Tokens that must not come next, where `when` returns True for the present length, the prompt included."""

    tokens: tuple[int, ...]
    when: Callable[[int], bool]

    def __call__(self, candidates: Candidates, length: int) -> Candidates:
        """Return the candidates with a score of -inf for banned tokens."""
        return candidates.without(self._marks) if self.when(length) else candidates

    @cached_property
    def _marks(self) -> NDArray[np.bool_]:
        """A mark for each token up to the greatest banned one, and a false one for all others."""
        tokens = [token for token in self.tokens if token >= 0]
        banned = np.zeros(max(tokens, default=-1) + 2, dtype=np.bool_)
        banned[tokens] = True
        return banned


@dataclass(frozen=True)
class Force:
    """Tokens of which one must come next where the present length is `at`."""

    tokens: tuple[int, ...]
    at: int

    def __call__(self, candidates: Candidates, length: int) -> Candidates:
        """Return the whole vocabulary with a score of 0 for forced tokens and -inf for all others."""
        if length != self.at:
            return candidates
        scores = np.full_like(candidates.scores, -np.inf)
        scores[:, :, list(self.tokens)] = 0
        return candidates.with_scores(scores)


Constraint = Ban | Force


def most_banned(constraints: Sequence[Constraint]) -> int:
    """Return the largest number of candidates of one beam that `constraints` can ban."""
    return len({token for constraint in constraints if isinstance(constraint, Ban) for token in constraint.tokens})


def is_among(tokens: Tokens, few: Tokens) -> NDArray[np.bool_]:
    """Return which tokens are among a few: `isin` in a tenth of its time."""
    found: NDArray[np.bool_] = tokens == few[0] if few.size == 1 else (tokens[..., None] == few).any(axis=-1)
    return found
