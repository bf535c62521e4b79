"""The decoder of one batch, step by step. Its caches never leave the backend."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.base import Backend, Prepared, Value
from ...bundle.graph_io import (
    DECODER_INIT,
    DECODER_WITH_PAST,
    ENCODER_ATTENTION_MASK,
    ENCODER_HIDDEN_STATES,
    LOGITS,
    TOP_IDS,
    TOP_LOGPROBS,
    cache_names,
)
from ...bundle.model_facts import DecoderFacts
from ...errors import GenerationError
from ..search.candidates import Candidates, in_order, whole_vocabulary
from ..search.state import Rows, Tokens
from .caches.cache import Binding, SelfAttentionCache
from .caches.growing import GrowingCache
from .caches.in_place import InPlaceCache
from .caches.static import StaticCache
from .caches.step_memories import StepMemories
from .caches.step_memory import StepMemory

_WHOLE, _BEST = (LOGITS,), (TOP_LOGPROBS, TOP_IDS)


@dataclass(frozen=True)
class _Step:
    """A step that can be run for as long as `bound` holds.

    Attributes:
        bound: what the cache has for it.
        outputs: that it answers with.
        run: runs it.
        found: arrays that the outputs are written to, on the host.
        last: of the last token of each beam, in these arrays.
        places: tensors that they are written to, where the cache says which.
    """

    bound: Binding
    outputs: Sequence[str]
    run: Prepared
    found: Sequence[NDArray[Any]] | None = None
    last: Sequence[NDArray[Any]] = ()
    places: Mapping[str, Value] = field(default_factory=dict)


class CachedDecoder:
    """The decoder of one batch of utterances, with its caches on the backend's device."""

    def __init__(
        self,
        backend: Backend,
        facts: DecoderFacts,
        batch: int,
        encoder_hidden_states: Value,
        encoder_attention_mask: Value,
        memories: StepMemories | None = None,
        longest: int | None = None,
    ) -> None:
        """Compute the cross-attention cache; the self-attention cache starts 0 long.

        With `memories` the steps are in memory of theirs, as long as there is some. Sequences of at most `longest`
        tokens need no more room than that.
        """
        self._backend = backend
        self._facts = facts
        lent = memories and memories.lend(self, encoder_hidden_states, encoder_attention_mask)
        if lent:
            self._fixed = lent.fixed
            self._cache: SelfAttentionCache = StaticCache(lent.memory, facts, recorded=True)
        else:
            cross = backend.run(
                DECODER_INIT, {ENCODER_HIDDEN_STATES: encoder_hidden_states}, cache_names("cross", facts.layers)
            )
            self._fixed = {ENCODER_ATTENTION_MASK: encoder_attention_mask, **cross}
            self._cache = self._new_cache(batch, longest)
        self._bound_step: _Step | None = None
        self._batch = batch
        self._rows: NDArray[np.int64] | None = None

    def start(self, prompt: Tokens, whole: bool) -> Candidates:
        """Decode prompts, as one beam each, and keep them in the cache.

        Args:
            prompt: int64 [batch, tokens].
            whole: return the logits of the whole vocabulary, not only the graph's best log-probabilities.

        Returns:
            Candidates for the token after the last one.
        """
        *_, found = self._runs(prompt[:, None], [[0]] * len(prompt), _WHOLE if whole else _BEST)
        return self._candidates(found, whole)

    def step(self, tokens: Rows, beams: Rows, whole: bool) -> Candidates:
        """Decode a token for each beam.

        Args:
            tokens: that the beams are continued with.
            beams: of the last step, those that are continued.
            whole: see `start`.
        """
        if self._rows is not None:
            tokens, beams = self._with_closed(tokens, self._rows), self._with_closed(beams, self._rows)
        return self._candidates(self._run(self._cache.go_on(tokens, beams), _WHOLE if whole else _BEST), whole)

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with some utterances only, and give back the memory of the others.

        Where the caches are on a device, the others are decoded on unheard: taking rows would bring all caches to the
        host and back, and a step takes hardly longer with them, since most of it is reading the weights.
        """
        if not self._backend.on_host:
            self._rows = rows if self._rows is None else self._rows[rows]
            return

        def kept(value: Value) -> Value:
            return self._backend.upload(np.ascontiguousarray(self._backend.download(value)[rows]))

        self._fixed = {name: kept(value) for name, value in self._fixed.items()}
        self._bound_step = None
        self._cache.keep(rows)

    def _with_closed(self, numbers: Rows, rows: NDArray[np.int64]) -> Rows:
        """The numbers of the utterances that go on, among zeros for those that only their caches are left of."""
        whole = [[0] * len(numbers[0])] * self._batch
        for row, own in zip(rows, numbers, strict=True):
            whole[row] = list(own)
        return whole

    def check_positions(self, tokens: int, name: str) -> None:
        """Check that the decoder has a position for each of so many tokens, which errors call `name`.

        Raises:
            GenerationError: it has not; or its static cache has no room for them.
        """
        limit = self._facts.longest
        if limit is not None and tokens > limit:
            longer = "" if limit == self._facts.max_positions else ", or export the model again with --static-cache"
            raise GenerationError(
                f"{name}: the decoder would be given {tokens:,} tokens, the start token included, and it takes "
                f"{limit:,} at most; shorten the text, or split the audio and its text{longer}"
            )

    def logits(self, input_ids: Tokens) -> NDArray[np.float32]:
        """Decode tokens int64 [batch, tokens] as one beam: logits float32 [batch, tokens, vocabulary].

        Raises:
            GenerationError: the decoder does not take so many tokens.
        """
        self.check_positions(input_ids.shape[1], "decoder_input_ids or labels")
        runs = self._runs(input_ids[:, None], [[0]] * len(input_ids), _WHOLE)
        return np.concatenate([self._by_beam(logits) for (logits,) in runs], axis=2)[:, 0]

    def logits_of_beams(self, input_ids: Tokens) -> NDArray[np.float32]:
        """Decode tokens int64 [beams, tokens] of the only utterance, from the beginning, and forget them again.

        Returns:
            Logits float32 [beams, tokens, vocabulary].
        """
        before, self._cache = self._cache, self._new_cache(1)
        runs = self._runs(input_ids[None], [[0] * len(input_ids)], _WHOLE)
        whole: NDArray[np.float32] = np.concatenate([self._by_beam(logits) for (logits,) in runs], axis=2)[0]
        self._cache = before
        return whole

    def _by_beam(self, found: NDArray[Any]) -> NDArray[Any]:
        slots = self._cache.slots
        return found if slots is None else in_order(found, slots)

    def _candidates(self, found: Sequence[NDArray[Any]], whole: bool) -> Candidates:
        """Of the last token of a step, [batch, beams, tokens, …]."""
        last = self._bound_step.last if self._bound_step is not None else ()
        if not last:
            last = [array[:, :, -1] if self._rows is None else array[self._rows, :, -1] for array in found]
        if whole:
            return whole_vocabulary(self._by_beam(last[0]))
        logprobs, ids = last
        return Candidates(ids, logprobs, slots=self._cache.slots)

    def _runs(self, input_ids: Tokens, beams: Rows, outputs: Sequence[str]) -> Iterator[Sequence[NDArray[Any]]]:
        """Run as many tokens of [batch, beams, tokens] at a time as a step takes."""
        tokens = input_ids.shape[2]
        width = self._facts.max_tokens or tokens
        for begin in range(0, tokens, width):
            if begin:  # on from where each beam is now
                beams = [list(range(input_ids.shape[1]))] * len(input_ids)
            yield self._run(self._cache.bind(input_ids[:, :, begin : begin + width], beams), outputs)

    def _run(self, bound: Binding, outputs: Sequence[str]) -> Sequence[NDArray[Any]]:
        """Outputs [batch, beams, tokens, …], in the order of the cache."""
        step = self._bound_step
        if step is None or step.bound is not bound or step.outputs is not outputs:
            step = self._bound_step = self._prepare(bound, outputs)
        results = step.run()
        self._cache.advance(results)
        if step.found is not None:
            return step.found
        made = {**results, **step.places}
        return [self._backend.download(made[name]) for name in outputs]

    def _prepare(self, bound: Binding, outputs: Sequence[str]) -> _Step:
        inputs = {**bound.inputs, **self._fixed}
        if bound.places is not None:
            places = bound.places(outputs)
            run = self._backend.prepare(DECODER_WITH_PAST, inputs, bound.outputs, {**bound.into, **places})
            return _Step(bound, outputs, run, places=places)
        if not self._backend.on_host:
            run = self._backend.prepare(DECODER_WITH_PAST, inputs, [*outputs, *bound.outputs], bound.into)
            return _Step(bound, outputs, run)
        width = {LOGITS: self._facts.vocab_size}
        found = [
            np.empty((*bound.shape, width.get(name, self._facts.top_k)), np.int64 if name == TOP_IDS else np.float32)
            for name in outputs
        ]
        into = {name: self._backend.share(array) for name, array in zip(outputs, found, strict=True)}
        run = self._backend.prepare(DECODER_WITH_PAST, inputs, bound.outputs, {**bound.into, **into})
        return _Step(bound, outputs, run, found, [array[:, :, -1] for array in found])

    def _new_cache(self, batch: int, longest: int | None = None) -> SelfAttentionCache:
        if self._facts.cache == "static":
            return StaticCache(StepMemory(self._backend, self._facts, batch), self._facts)
        if self._facts.cache == "in_place":
            return InPlaceCache(self._backend, self._facts, batch, longest)
        return GrowingCache(self._backend, self._facts, batch)
