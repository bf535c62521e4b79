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
    outputs: list[str]
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
        outputs = [LOGITS] if whole else [TOP_LOGPROBS, TOP_IDS]
        input_ids, beam_idx = self._with_closed(input_ids), self._with_closed(beam_idx)
        first, *others = self._chunks(input_ids)
        results = self._run(first, beam_idx, outputs)
        for chunk in others:
            results = self._run(chunk, np.broadcast_to(np.arange(beam_idx.shape[1]), beam_idx.shape), outputs)
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

    def _with_closed(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The values of the utterances that go on, among zeros for those that only their caches are left of."""
        if self._rows is None:
            return values
        whole = np.zeros((self._batch, *values.shape[1:]), dtype=values.dtype)
        whole[self._rows] = values
        return whole

    def logits(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode tokens int64 [batch, tokens] as one beam: logits float32 [batch, tokens, vocabulary]."""
        beam_idx = np.zeros((len(input_ids), 1), dtype=np.int64)
        logits = [self._run(chunk, beam_idx, [LOGITS])[0] for chunk in self._chunks(input_ids[:, None])]
        return np.concatenate(logits, axis=2)[:, 0]

    def logits_of_beams(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode tokens int64 [beams, tokens] of the only utterance, from the beginning, and forget them again.

        Returns:
            Logits float32 [beams, tokens, vocabulary].
        """
        before, beam_idx = self._cache, np.zeros((1, len(input_ids)), dtype=np.int64)
        self._cache = self._new_cache(1)
        logits = []
        for chunk in self._chunks(input_ids[None]):
            logits.append(self._run(chunk, beam_idx, [LOGITS])[0])
            beam_idx = np.arange(len(input_ids))[None]
        self._cache = before
        whole: NDArray[np.float32] = np.concatenate(logits, axis=2)[0]
        return whole

    def _chunks(self, input_ids: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """As many tokens of [batch, beams, tokens] at a time as a step takes."""
        tokens = input_ids.shape[2]
        width = self._facts.max_tokens or tokens
        return [input_ids[:, :, begin : begin + width] for begin in range(0, tokens, width)]

    def _run(self, input_ids: NDArray[np.int64], beam_idx: NDArray[np.int64], outputs: list[str]) -> list[NDArray[Any]]:
        bound = self._cache.bind(input_ids, beam_idx)
        if self._bound_step is None or self._bound_step.bound is not bound or self._bound_step.outputs != outputs:
            self._bound_step = self._prepare(bound, outputs, input_ids.shape)
        results = self._bound_step.run()
        self._cache.advance(results)
        found = self._bound_step.found
        if found is None:
            made = {**results, **self._bound_step.places}
            found = [self._engine.download(made[name]) for name in outputs]
        return [self._cache.by_beam(array) for array in found]

    def _prepare(self, bound: Binding, outputs: list[str], shape: tuple[int, ...]) -> "_Step":
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
