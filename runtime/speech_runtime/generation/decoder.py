"""The decoder of one batch, step by step. Its caches never leave the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import DecoderFacts
from ..contract import (
    DECODER_INIT,
    DECODER_WITH_PAST,
    ENCODER_ATTENTION_MASK,
    ENCODER_HIDDEN_STATES,
    LOGITS,
    TOP_IDS,
    TOP_LOGPROBS,
    cache_names,
)
from ..engines.engine import Engine, Prepared, Value
from .cache import Binding, SelfAttentionCache
from .candidates import Candidates, whole_vocabulary
from .growing_cache import GrowingCache
from .in_place_cache import InPlaceCache
from .static_cache import StaticCache
from .step_memories import StepMemories
from .step_memory import StepMemory

_WHOLE, _BEST = (LOGITS,), (TOP_LOGPROBS, TOP_IDS)


@dataclass(frozen=True)
class _Step:
    """A step that can be run for as long as `bound` holds.

    Attributes:
        bound: what the cache has for it.
        outputs: that it answers with.
        run: runs it.
        found: arrays that the outputs are written to, on the host.
        places: tensors that they are written to, where the cache says which.
    """

    bound: Binding
    outputs: Sequence[str]
    run: Prepared
    found: Sequence[NDArray[Any]] | None = None
    places: Mapping[str, Value] = field(default_factory=dict)


class CachedDecoder:
    """The decoder of one batch of utterances, with its caches on the engine's device."""

    def __init__(
        self,
        engine: Engine,
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
        self._engine = engine
        self._facts = facts
        lent = memories and memories.lend(self, encoder_hidden_states, encoder_attention_mask)
        if lent:
            self._fixed = lent.fixed
            self._cache: SelfAttentionCache = StaticCache(lent.memory, facts, recorded=True)
        else:
            cross = engine.run(
                DECODER_INIT, {ENCODER_HIDDEN_STATES: encoder_hidden_states}, cache_names("cross", facts.layers)
            )
            self._fixed = {ENCODER_ATTENTION_MASK: encoder_attention_mask, **cross}
            self._cache = self._new_cache(batch, longest)
        self._bound_step: _Step | None = None
        self._batch = batch
        self._rows: NDArray[np.int64] | None = None

    def step(self, input_ids: NDArray[np.int64], beam_idx: NDArray[np.int64], whole: bool) -> Candidates:
        """Decode new tokens and keep them in the cache.

        Args:
            input_ids: int64 [batch, beams, tokens].
            beam_idx: int64 [batch, beams], the beams of the last step that are continued.
            whole: return the logits of the whole vocabulary, not only the graph's best log-probabilities.

        Returns:
            Candidates for the token after the last of `input_ids`.
        """
        outputs = _WHOLE if whole else _BEST
        if self._rows is not None:
            input_ids, beam_idx = self._with_closed(input_ids, self._rows), self._with_closed(beam_idx, self._rows)
        *_, results = self._runs(input_ids, beam_idx, outputs)
        results = [result[:, :, -1] if self._rows is None else result[self._rows, :, -1] for result in results]
        if whole:
            return whole_vocabulary(results[0])
        logprobs, ids = results
        return Candidates(ids, logprobs)

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with some utterances only, and give back the memory of the others.

        Where the caches are on a device, the others are decoded on unheard: taking rows would bring all caches to the
        host and back, and a step takes hardly longer with them, since most of it is reading the weights.
        """
        if not self._engine.on_host:
            self._rows = rows if self._rows is None else self._rows[rows]
            return

        def kept(value: Value) -> Value:
            return self._engine.upload(np.ascontiguousarray(self._engine.download(value)[rows]))

        self._fixed = {name: kept(value) for name, value in self._fixed.items()}
        self._bound_step = None
        self._cache.keep(rows)

    def _with_closed(self, values: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The values of the utterances that go on, among zeros for those that only their caches are left of."""
        whole = np.zeros((self._batch, *values.shape[1:]), dtype=values.dtype)
        whole[rows] = values
        return whole

    def logits(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode tokens int64 [batch, tokens] as one beam: logits float32 [batch, tokens, vocabulary]."""
        runs = self._runs(input_ids[:, None], np.zeros((len(input_ids), 1), dtype=np.int64), _WHOLE)
        return np.concatenate([logits for (logits,) in runs], axis=2)[:, 0]

    def logits_of_beams(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode tokens int64 [beams, tokens] of the only utterance, from the beginning, and forget them again.

        Returns:
            Logits float32 [beams, tokens, vocabulary].
        """
        before, self._cache = self._cache, self._new_cache(1)
        runs = self._runs(input_ids[None], np.zeros((1, len(input_ids)), dtype=np.int64), _WHOLE)
        self._cache = before
        whole: NDArray[np.float32] = np.concatenate([logits for (logits,) in runs], axis=2)[0]
        return whole

    def _runs(
        self, input_ids: NDArray[np.int64], beam_idx: NDArray[np.int64], outputs: Sequence[str]
    ) -> list[list[NDArray[Any]]]:
        """Run as many tokens of [batch, beams, tokens] at a time as a step takes."""
        tokens, runs = input_ids.shape[2], []
        width = self._facts.max_tokens or tokens
        for begin in range(0, tokens, width):
            if begin:  # on from where each beam is now
                beam_idx = np.broadcast_to(np.arange(beam_idx.shape[1]), beam_idx.shape)
            runs.append(self._run(input_ids[:, :, begin : begin + width], beam_idx, outputs))
        return runs

    def _run(
        self, input_ids: NDArray[np.int64], beam_idx: NDArray[np.int64], outputs: Sequence[str]
    ) -> list[NDArray[Any]]:
        bound, step = self._cache.bind(input_ids, beam_idx), self._bound_step
        if step is None or step.bound is not bound or step.outputs is not outputs:
            step = self._bound_step = self._prepare(bound, outputs, input_ids.shape)
        results = step.run()
        self._cache.advance(results)
        found = step.found
        if found is None:
            made = {**results, **step.places}
            found = [self._engine.download(made[name]) for name in outputs]
        return [self._cache.by_beam(array) for array in found]

    def _prepare(self, bound: Binding, outputs: Sequence[str], shape: tuple[int, ...]) -> _Step:
        """A step that answers tokens of `shape`."""
        inputs = {**bound.inputs, **self._fixed}
        if bound.places is not None:
            places = bound.places(outputs)
            run = self._engine.prepare(DECODER_WITH_PAST, inputs, bound.outputs, {**bound.into, **places})
            return _Step(bound, outputs, run, places=places)
        if not self._engine.on_host:
            run = self._engine.prepare(DECODER_WITH_PAST, inputs, [*outputs, *bound.outputs], bound.into)
            return _Step(bound, outputs, run)
        width = {LOGITS: self._facts.vocab_size}
        found = [
            np.empty((*shape, width.get(name, self._facts.top_k)), np.int64 if name == TOP_IDS else np.float32)
            for name in outputs
        ]
        into = {name: self._engine.share(array) for name, array in zip(outputs, found, strict=True)}
        run = self._engine.prepare(DECODER_WITH_PAST, inputs, bound.outputs, {**bound.into, **into})
        return _Step(bound, outputs, run, found)

    def _new_cache(self, batch: int, longest: int | None = None) -> SelfAttentionCache:
        if self._facts.cache == "static":
            return StaticCache(StepMemory(self._engine, self._facts, batch), self._facts)
        if self._facts.cache == "in_place":
            return InPlaceCache(self._engine, self._facts, batch, longest)
        return GrowingCache(self._engine, self._facts, batch)
