"""What ends a sequence besides its end tokens and its length, and what ends the whole search."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .state import Tokens

StoppingCriterion = Callable[[Tokens], NDArray[np.bool_]]
"""Sequences int64 [rows, length], the prompt included, to whether each is to end here: bool [rows]."""


@dataclass(frozen=True)
class Stopping:
    """What ends one search.

    Attributes:
        criteria: of sequences.
        when_settled: end as soon as what is returned is better than all that may still come, although transformers goes
            on until it has as many sequences as beams. To be set only where scores fall from token to token, as sums
            of log-probabilities do.
    """

    criteria: Sequence[StoppingCriterion] = ()
    when_settled: bool = False

    def of(self, sequences: Tokens) -> NDArray[np.bool_]:
        """Whether each of the sequences [batch, beams, length] is to end."""
        batch, beams, length = sequences.shape
        ends = np.zeros(batch * beams, dtype=bool)
        for criterion in self.criteria:
            ends |= np.asarray(criterion(sequences.reshape(-1, length)), dtype=bool)
        return ends.reshape(batch, beams)


@dataclass(frozen=True)
class Deadline:
    """When a search has to end, whatever it has found."""

    max_time: float | None = None
    cancel: Event | None = None
    begin: float = field(default_factory=time.perf_counter)

    def passed(self) -> Literal["time", "stopped"] | None:
        """Why the search has to end now, or None."""
        if self.cancel is not None and self.cancel.is_set():
            return "stopped"
        if self.max_time is not None and time.perf_counter() - self.begin > self.max_time:
            return "time"
        return None
