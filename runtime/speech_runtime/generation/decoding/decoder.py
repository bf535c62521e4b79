"""The decoder of one batch, run step by step. Its caches never leave the backend."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...backends.base import Backend, Prepared, Value
from ...bundle.graph_io import (
    DECODER_WITH_PAST,
    LOGITS,
    TOP_IDS,
    TOP_LOGPROBS,
)
from ...bundle.model_facts import DecoderFacts
from ...errors import GenerationError
from ..search.base import Candidates, PerBeam, Tokens, all_tokens, in_order
from .caches.base import Binding, SelfAttentionCache
from .caches.buffer_pool import StepBufferPool
from .caches.cross import CrossStates
from .caches.growing import GrowingCache
from .caches.in_place import InPlaceCache
from .caches.static import StaticCache, StepBuffers
from .caches.tree import TreeBuffers, TreeCache

_FULL_VOCAB, _BEST, _BEST_AND_LOGITS = (LOGITS,), (TOP_LOGPROBS, TOP_IDS), (TOP_LOGPROBS, TOP_IDS, LOGITS)
_COMPARED = 512
"""Number of tokens of texts that are compared with each other at once, where beams share a cache."""


@dataclass(frozen=True)
class _Step:
    """A prepared step, to be run for as long as the cache returns the same binding.

    Attributes:
        bound: Binding of the cache.
        outputs: Names of the outputs that the step returns.
        run: Function that runs the step.
        found: Arrays on the host that the outputs are written to; None where the backend keeps them.
        last: Views of the last token of each beam in these arrays.
        places: Tensors that the outputs are written to, where the cache provides them.
    """

    bound: Binding
    outputs: Sequence[str]
    run: Prepared
    found: Sequence[NDArray[Any]] | None = None
    last: Sequence[NDArray[Any]] = ()
    places: Mapping[str, Value] = field(default_factory=dict)


def _outputs_for(full_vocab: bool, keep_logits: bool) -> Sequence[str]:
    if full_vocab:
        return _FULL_VOCAB
    return _BEST_AND_LOGITS if keep_logits else _BEST


class CachedDecoder:
    """The decoder of one batch of utterances, with its caches on the backend's device."""

    def __init__(
        self,
        backend: Backend,
        facts: DecoderFacts,
        batch: int,
        encoder_hidden_states: Value,
        encoder_attention_mask: Value,
        buffers: StepBufferPool | None = None,
        longest: int | None = None,
        beams: int = 1,
    ) -> None:
        """Compute the cross-attention cache, and start with an empty self-attention cache.

        Args:
            backend: Backend that runs the graphs.
            facts: Facts of the decoder.
            batch: Number of utterances.
            encoder_hidden_states: Output of the encoder.
            encoder_attention_mask: Mask of the encoder's output.
            buffers: Pool of buffers for recorded steps; without one, or if it is empty, steps are not recorded.
            longest: Maximal length of a sequence; a cache that can get more room begins with no more than that.
            beams: Number of beams of the search, for buffers of their size.
        """
        self._backend = backend
        self._facts = facts
        lent = buffers and buffers.lend(self, encoder_hidden_states, encoder_attention_mask, beams)
        self._lent = lent if isinstance(lent, TreeBuffers) else None
        if lent:
            self._cross = CrossStates(backend, lent.fixed, masked=facts.masks_audio)
            self._cache: SelfAttentionCache = (
                TreeCache(lent, facts, batch, beams, longest, recorded=True)
                if isinstance(lent, TreeBuffers)
                else StaticCache(lent, facts, recorded=True)
            )
        else:
            self._cross = CrossStates.computed(backend, facts, encoder_hidden_states, encoder_attention_mask)
            self._cache = self._new_cache(batch, longest, beams)
        self._prepared: _Step | None = None
        self._logits: Value = None  # of the last step, while they are on a device
        self._batch = batch
        self._active: NDArray[np.int64] | None = None  # None while every utterance in the caches is active

    @property
    def joins(self) -> bool:
        """True if the caches of other utterances can join these, and if each of these can leave at once."""
        return self._facts.ragged and self._backend.on_host

    def takes(self, newcomers: Self) -> bool:
        """Return true if the utterances of another decoder can join these: without a mask, with as many frames only."""
        return self.joins and (self._facts.masks_audio or self._cross.frames == newcomers._cross.frames)

    def start(self, prompt: Tokens, full_vocab: bool, keep_logits: bool = False) -> list[Candidates]:
        """Decode prompts, as one beam each, and keep them in the cache.

        Args:
            prompt: Token ids int64 [batch, tokens].
            full_vocab: If true, return the logits of the whole vocabulary, else the graph's best log-probabilities.
            keep_logits: If true, the best candidates can be exchanged for the whole vocabulary.

        Returns:
            Candidates of each utterance for the token after the last one.
        """
        *_, found = self._runs(prompt[:, None], [[0]] * len(prompt), _outputs_for(full_vocab, keep_logits))
        return self._candidates(found, full_vocab)

    def step(self, tokens: PerBeam, beam_idx: PerBeam, full_vocab: bool, keep_logits: bool = False) -> list[Candidates]:
        """Decode one token for each beam.

        Args:
            tokens: Next token of each beam.
            beam_idx: Beam of the last step that each token continues.
            full_vocab: As in `start`.
            keep_logits: As in `start`.
        """
        if self._active is not None:
            tokens, beam_idx = self._scattered(tokens, self._active), self._scattered(beam_idx, self._active)
        bound = self._cache.append_token(tokens, beam_idx)
        return self._candidates(self._run(bound, _outputs_for(full_vocab, keep_logits)), full_vocab)

    def select_utterances(self, utterances: Sequence[int]) -> None:
        """Drop all utterances but these, put them in this order, and free the memory of the others.

        Where the caches are on a device, finished utterances keep decoding, and their output is ignored: selecting
        rows would bring all caches to the host and back, and a step takes hardly longer with them, since most of its
        time is spent reading the weights.
        """
        if not self._backend.on_host:
            order = np.array(utterances)
            self._active = order if self._active is None else self._active[order]
            return
        self._prepared = None
        self._cross.select_utterances(utterances)
        self._cache.select_utterances(utterances)

    def join(self, newcomers: Self, beams: int, capacity: int) -> None:
        """Take over the utterances of another decoder, which has decoded their prompts; all get so many beams.

        This must take them: see `takes`. The other decoder is of no use afterwards. Where memory is allocated for
        that, there is room for `capacity` utterances.
        """
        if not isinstance(self._cache, InPlaceCache) or not isinstance(newcomers._cache, InPlaceCache):
            raise TypeError("only utterances with a cache in place can join each other")
        self._prepared = None
        self._cross.join(newcomers._cross, capacity)
        self._cache.join(newcomers._cache, beams, capacity)

    def _scattered(self, numbers: PerBeam, active: NDArray[np.int64]) -> PerBeam:
        """Scatter the numbers of active utterances into the full batch; finished utterances get 0."""
        full = [[0] * len(numbers[0])] * self._batch
        for utterance, own in zip(active, numbers, strict=True):
            full[utterance] = list(own)
        return full

    def check_positions(self, tokens: int, name: str) -> None:
        """Check that the decoder takes as many as `tokens` tokens; errors call them `name`.

        Raises:
            GenerationError: The decoder has too few positions, or its static cache has no room.
        """
        limit = self._facts.longest
        if limit is not None and tokens > limit:
            longer = "" if limit == self._facts.max_positions else ", or export the model again with --static-cache"
            raise GenerationError(
                f"{name}: the decoder would be given {tokens:,} tokens, the start token included, and it takes "
                f"{limit:,} at most; shorten the text, or split the audio and its text{longer}"
            )

    def logits(self, input_ids: Tokens) -> NDArray[np.float32]:
        """Decode tokens int64 [batch, tokens] as one beam, and return logits float32 [batch, tokens, vocabulary].

        Raises:
            GenerationError: The decoder does not take so many tokens.
        """
        self.check_positions(input_ids.shape[1], "decoder_input_ids or labels")
        runs = self._runs(input_ids[:, None], [[0]] * len(input_ids), _FULL_VOCAB)
        return self._whole(np.concatenate([self._by_beam(logits) for (logits,) in runs], axis=2)[:, 0])

    def logits_of_beams(self, input_ids: Tokens) -> NDArray[np.float32]:
        """Decode tokens int64 [beams, tokens] of the only utterance from the beginning, in caches of their own.

        Returns:
            Logits float32 [beams, tokens, vocabulary].
        """
        if self._facts.cache != "tree":
            return self._logits_of_beams(input_ids)
        # Each token of each beam is compared with all of them, although it sees its own alone: few beams at a time.
        at_once = max(1, _COMPARED // input_ids.shape[1])
        parts = [self._logits_of_beams(input_ids[row : row + at_once]) for row in range(0, len(input_ids), at_once)]
        return np.concatenate(parts)

    def _logits_of_beams(self, input_ids: Tokens) -> NDArray[np.float32]:
        before, self._cache = self._cache, self._new_cache(1)
        runs = self._runs(input_ids[None], [[0] * len(input_ids)], _FULL_VOCAB)
        logits = np.concatenate([self._by_beam(found) for (found,) in runs], axis=2)[0]
        self._cache = before
        return self._whole(logits)

    def _by_beam(self, found: NDArray[Any]) -> NDArray[Any]:
        """Return a step's output [batch, slots, …] in the order of the beams."""
        slots = self._cache.slots
        return found if slots is None else in_order(found, slots)

    def _whole(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits [..., vocabulary] for those of a step, which has none for tokens that are left out."""
        return self._facts.vocabulary.expanded(logits)

    def _candidates(self, found: Sequence[NDArray[Any]], full_vocab: bool) -> list[Candidates]:
        """Return each utterance's candidates after the last token of a step with outputs [batch, beams, tokens, …]."""
        last = self._prepared.last if self._prepared is not None else ()
        if not last:
            last = [self._last(array) for array in found]
        best = last[0].max(axis=-1) if full_vocab else last[0][:, :, 0]
        finite = np.isfinite(best).all(axis=1).tolist()
        if full_vocab:
            logits = self._whole(self._by_beam(last[0]))
            return [all_tokens(logits[row : row + 1], is_finite=own) for row, own in enumerate(finite)]
        logprobs, ids = last[:2]
        slots = self._cache.slots
        return [
            Candidates(
                ids[row : row + 1],
                logprobs[row : row + 1],
                slots=None if slots is None else slots[row],
                is_sorted=True,
                is_finite=own,
                logits=partial(self._kept_logits, row),
            )
            for row, own in enumerate(finite)
        ]

    def _last(self, found: NDArray[Any]) -> NDArray[Any]:
        return found[:, :, -1] if self._active is None else found[self._active, :, -1]

    def _kept_logits(self, row: int) -> NDArray[np.float32]:
        """Return the logits [1, beams, vocabulary] of the last step, which kept them; they may be on a device."""
        if self._prepared is not None and self._prepared.last:
            logits = self._prepared.last[2]
        else:
            logits = self._last(self._backend.download(self._logits))
        slots = self._cache.slots
        own = logits[row : row + 1]
        return self._whole(own if slots is None else own[:, slots[row]])

    def _runs(self, input_ids: Tokens, beam_idx: PerBeam, outputs: Sequence[str]) -> Iterator[Sequence[NDArray[Any]]]:
        """Decode [batch, beams, tokens], as many tokens at a time as the graph takes."""
        tokens = input_ids.shape[2]
        width = self._facts.max_tokens or tokens
        for begin in range(0, tokens, width):
            if begin:  # each beam continues itself
                beam_idx = [list(range(input_ids.shape[1]))] * len(input_ids)
            yield self._run(self._cache.bind(input_ids[:, :, begin : begin + width], beam_idx), outputs)

    def _run(self, bound: Binding, outputs: Sequence[str]) -> Sequence[NDArray[Any]]:
        """Run a step, and return its outputs [batch, beams, tokens, …] in the order of the cache's slots."""
        step = self._prepared
        if step is None or step.bound is not bound or step.outputs is not outputs:
            step = self._prepared = self._prepare(bound, outputs)
        if self._lent is None:
            return self._outputs(step)
        finite, self._lent.finite = self._lent.finite, False  # what an interrupted run has written is not known
        found = self._outputs(step)
        self._lent.finite = finite and all(np.isfinite(array.max(axis=-1)).all() for array in found)
        return found

    def _outputs(self, step: _Step) -> Sequence[NDArray[Any]]:
        results = step.run()
        self._cache.commit(results)
        if step.found is not None:
            return step.found
        made = {**results, **step.places}
        now = _BEST if step.outputs is _BEST_AND_LOGITS else step.outputs
        self._logits = made.get(LOGITS)
        return [self._backend.download(made[name]) for name in now]

    def _prepare(self, bound: Binding, outputs: Sequence[str]) -> _Step:
        inputs = {**bound.inputs, **self._cross.values}
        places = bound.places and bound.places(outputs)
        if places is not None:
            run = self._backend.prepare(DECODER_WITH_PAST, inputs, bound.outputs, {**bound.into, **places})
            return _Step(bound, outputs, run, places=places)
        if not self._backend.on_host:
            run = self._backend.prepare(DECODER_WITH_PAST, inputs, [*outputs, *bound.outputs], bound.into)
            return _Step(bound, outputs, run)
        width = {LOGITS: self._facts.vocabulary.count}
        found = [
            np.empty((*bound.shape, width.get(name, self._facts.top_k)), np.int64 if name == TOP_IDS else np.float32)
            for name in outputs
        ]
        into = {name: self._backend.share(array) for name, array in zip(outputs, found, strict=True)}
        run = self._backend.prepare(DECODER_WITH_PAST, inputs, bound.outputs, {**bound.into, **into})
        return _Step(bound, outputs, run, found, [array[:, :, -1] for array in found])

    def _new_cache(self, batch: int, longest: int | None = None, beams: int = 1) -> SelfAttentionCache:
        if self._facts.cache == "tree":
            return TreeCache(TreeBuffers(self._backend, self._facts, batch), self._facts, batch, beams, longest)
        if self._facts.cache == "static":
            return StaticCache(StepBuffers(self._backend, self._facts, batch), self._facts)
        if self._facts.cache == "in_place":
            return InPlaceCache(self._backend, self._facts, batch, longest)
        return GrowingCache(self._backend, self._facts, batch)
