"""A self-attention cache of one length for ever: no shape changes from step to step, and no address but in turn.

Two sets of tensors take turns as past and present. In place would do with one, were it not that whoever records a step
as a CUDA graph runs it more than once to begin with: reordered twice, the beams would not be theirs.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ....backends.base import Value
from ....bundle.graph_io import INPUT_IDS, PAST_LENGTH, PAST_ROWS
from ....bundle.model_facts import DecoderFacts
from ....errors import GenerationError
from ...search.state import Rows, Tokens
from .cache import Binding
from .step_memory import StepMemory


class StaticCache:
    """Keys and values [batch, beams, heads, length, head_dim] in a `StepMemory`. See `SelfAttentionCache`."""

    def __init__(self, memory: StepMemory, facts: DecoderFacts, *, recorded: bool = False) -> None:
        """Start 0 long in `memory`, where all that a step makes goes if it is `recorded`."""
        self._memory = memory
        self._recorded = recorded
        self._room = facts.cache_length or 0
        self._past_length = 0
        self._beams, self._turn = 1, 0

    def bind(self, input_ids: Tokens, beams: Rows) -> Binding:
        """See `SelfAttentionCache.bind`; of one token."""
        batch, width, _ = input_ids.shape
        if self._past_length == self._room:
            raise GenerationError(_too_long(self._room + 1, self._room))
        past = self._memory.past(self._beams, self._turn)
        if width == self._beams:
            self._turn = 1 - self._turn
        rows = np.arange(batch)[:, None] * self._beams + np.array(beams)
        self._beams = width
        inputs = {
            INPUT_IDS: self._memory.written(INPUT_IDS, input_ids),
            PAST_ROWS: self._memory.written(PAST_ROWS, rows),
            PAST_LENGTH: self._memory.written(PAST_LENGTH, np.array([self._past_length])),
        }
        present = self._memory.present(width, self._turn)
        places = partial(self._memory.outputs, beams=width) if self._recorded else None
        return Binding(input_ids.shape, inputs | past, into=present, places=places)

    def go_on(self, tokens: Rows, beams: Rows) -> Binding:
        """See `SelfAttentionCache.go_on`."""
        return self.bind(np.array(tokens)[:, :, None], beams)

    @property
    def slots(self) -> None:
        """See `SelfAttentionCache.slots`: the graph puts the beams in order."""

    def advance(self, _: Mapping[str, Value]) -> None:
        """See `SelfAttentionCache.advance`."""
        self._past_length += 1

    def keep(self, rows: NDArray[np.int64]) -> None:
        """See `SelfAttentionCache.keep`."""
        self._memory = self._memory.of_rows(rows, self._beams, self._turn)


def check_static_length(facts: DecoderFacts, longest: int) -> None:
    """Check that a sequence of `longest` tokens fits a static cache, which never sees the last one.

    Raises:
        GenerationError: it does not.
    """
    if facts.cache_length is not None and longest > facts.cache_length + 1:
        raise GenerationError(_too_long(longest, facts.cache_length))


def _too_long(tokens: int, room: int) -> str:
    return (
        f"a sequence of {tokens:,} tokens does not fit the static cache of this bundle, which has room for {room:,} "
        f"and needs none for the last one; set max_length to {room + 1} or less, or export the model again with a "
        "longer one: --static-cache TOKENS"
    )
