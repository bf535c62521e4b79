"""A self-attention cache of fixed length in tensors that keep their addresses, so that a step can be recorded.

Two sets of tensors take turns as past and present. ONNX Runtime runs a graph several times while it captures it as a
CUDA graph, so reordering the beams in place would apply twice.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from ....backends.base import Backend, Value
from ....bundle.graph_io import INPUT_IDS, PAST_LENGTH, PAST_ROWS, cache_names
from ....bundle.model_facts import DecoderFacts
from ....errors import GenerationError
from ...search.base import PerBeam, Tokens
from .base import Binding
from .step_tensors import Layout, StepTensors, size_of


class StepBuffers(StepTensors):
    """Tensors of a step with a static cache."""

    def __init__(
        self, backend: Backend, facts: DecoderFacts, batch: int, take: Callable[[int], bool] | None = None
    ) -> None:
        """See `StepTensors`."""
        super().__init__(backend, facts, batch, take)
        self._caches: dict[tuple[int, int], list[Value]] = {}

    def past(self, beams: int, turn: int) -> dict[str, Value]:
        """Return the cache of so many beams as inputs, the first (`turn` 0) or the second (1) of the two."""
        return self._named("past", beams, turn)

    def present(self, beams: int, turn: int) -> dict[str, Value]:
        """Return the same cache as outputs."""
        return self._named("present", beams, turn)

    def for_utterances(self, utterances: Sequence[int], beams: int, turn: int) -> "StepBuffers":
        """Return other buffers, with the cache of these utterances in them."""
        taken = StepBuffers(self._backend, self._facts, len(utterances))
        before = self.past(beams, turn)
        for name, tensor in taken.past(beams, turn).items():
            self._backend.write(tensor, np.ascontiguousarray(self._backend.download(before[name])[utterances]))
        return taken

    def _named(self, kind: str, beams: int, turn: int) -> dict[str, Value]:
        if (beams, turn) not in self._caches:
            self._caches[beams, turn] = [self._backend.allocate(*layout) for layout in self._layers(beams)]
        return dict(zip(cache_names(kind, self._facts.layers), self._caches[beams, turn], strict=True))

    def _cache_size(self, beams: int) -> int:
        """See `StepTensors`: two of each kind take turns, and the first step has one beam."""
        return sum(2 * size_of(self._layers(width)) for width in {1, beams})

    def _layers(self, beams: int) -> list[Layout]:
        facts = self._facts
        shape = (self._batch, beams, facts.heads, facts.cache_length or 0, facts.head_dim)
        return [(shape, dtype) for dtype in self._cache_dtypes()]


class StaticCache:
    """Keys and values [batch, beams, heads, length, head_dim] in `StepBuffers`. See `SelfAttentionCache`."""

    def __init__(self, buffers: StepBuffers, facts: DecoderFacts, *, recorded: bool = False) -> None:
        """Start empty in `buffers`; if the step is `recorded`, all its outputs go there too."""
        self._buffers = buffers
        self._recorded = recorded
        self._room = facts.cache_length or 0
        self._past_length = 0
        self._beams, self._turn = 1, 0

    def bind(self, input_ids: Tokens, beam_idx: PerBeam) -> Binding:
        """See `SelfAttentionCache.bind`; takes one token for each beam."""
        batch, width, _ = input_ids.shape
        if self._past_length == self._room:
            raise GenerationError(_too_long(self._room + 1, self._room))
        past = self._buffers.past(self._beams, self._turn)
        if width == self._beams:
            self._turn = 1 - self._turn
        past_rows = np.arange(batch)[:, None] * self._beams + np.array(beam_idx)
        self._beams = width
        inputs = {
            INPUT_IDS: self._buffers.written(INPUT_IDS, input_ids),
            PAST_ROWS: self._buffers.written(PAST_ROWS, past_rows),
            PAST_LENGTH: self._buffers.written(PAST_LENGTH, np.array([self._past_length])),
        }
        present = self._buffers.present(width, self._turn)
        places = partial(self._buffers.outputs, beams=width) if self._recorded else None
        return Binding(input_ids.shape, inputs | past, into=present, places=places)

    def append_token(self, tokens: PerBeam, beam_idx: PerBeam) -> Binding:
        """See `SelfAttentionCache.append_token`."""
        return self.bind(np.array(tokens)[:, :, None], beam_idx)

    @property
    def slots(self) -> None:
        """See `SelfAttentionCache.slots`: the graph puts the beams in order."""

    def commit(self, _: Mapping[str, Value]) -> None:
        """See `SelfAttentionCache.commit`."""
        self._past_length += 1

    def select_utterances(self, utterances: Sequence[int]) -> None:
        """See `SelfAttentionCache.select_utterances`."""
        self._buffers = self._buffers.for_utterances(utterances, self._beams, self._turn)


def check_static_length(facts: DecoderFacts, longest: int) -> None:
    """Check that sequences of `longest` tokens fit a static cache, which never sees the last token.

    Raises:
        GenerationError: They do not fit.
    """
    if facts.cache_length is not None and longest > facts.cache_length + 1:
        raise GenerationError(_too_long(longest, facts.cache_length))


def _too_long(tokens: int, room: int) -> str:
    return (
        f"a sequence of {tokens:,} tokens does not fit the static cache of this bundle, which has room for {room:,} "
        f"and needs none for the last one; set max_length to {room + 1} or less, or export the model again with a "
        "longer one: --static-cache TOKENS"
    )
