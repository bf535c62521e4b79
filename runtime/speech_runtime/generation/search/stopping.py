"""Reasons for which a sequence ends, and conditions that end a search early."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Cut = Literal["length", "time", "stopped"]
"""Reason why a sequence is cut off: its maximal length, `max_time` or `cancel`."""

Finish = Literal["end"] | Cut
"""Reason why a sequence ended: "end" stands for an end token, a stop string or a stopping criterion.

An end token that is forced at the maximal length (`forced_eos_token_id`) does not count: the sequence is cut off there.
"""

StoppingCriterion = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Takes sequences int64 [rows, length], the prompt included, and returns which of them end here: bool [rows]."""


@dataclass(frozen=True)
class Stopping:
    """Conditions that end sequences, or the search, besides end tokens and the maximal length.

    Attributes:
        criteria: Functions that return which sequences end.
        when_settled: If true, the search ends as soon as no live beam can improve the returned sequences, although
            transformers goes on until it has as many finished sequences as beams. Set it only where scores can only
            fall from token to token, as sums of log-probabilities do.
    """

    criteria: Sequence[StoppingCriterion] = ()
    when_settled: bool = False

    def ends(self, sequences: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the sequences [batch, beams, length] end here: bool [batch, beams]."""
        batch, beams, length = sequences.shape
        ends = np.zeros(batch * beams, dtype=bool)
        for criterion in self.criteria:
            ends |= np.asarray(criterion(sequences.reshape(-1, length)), dtype=bool)
        return ends.reshape(batch, beams)


@dataclass(frozen=True)
class Deadline:
    """Time limit and cancellation of a call, after which the search ends and returns its results so far."""

    max_time: float | None = None
    cancel: Event | None = None
    begin: float = field(default_factory=time.perf_counter)

    def passed(self) -> Literal["time", "stopped"] | None:
        """Return why the search must end now, or None."""
        if self.cancel is not None and self.cancel.is_set():
            return "stopped"
        if self.max_time is not None and time.perf_counter() - self.begin > self.max_time:
            return "time"
        return None
