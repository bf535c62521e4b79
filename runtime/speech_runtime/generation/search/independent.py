"""Greedy search and sampling: sequences that do not compete, as in transformers' `GenerationMixin._sample`."""

from copy import copy
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...errors import GenerationError
from ..config import GenerationConfig
from ..token_scores.constraints import is_among
from ..token_scores.sampling import sample
from .base import Candidates, PerBeam, SearchResult, Tokens
from .ranking import raw_logprobs
from .stopping import Cut, Stopping


class IndependentSearch:
    """One sequence per utterance, made of the best tokens; or several, drawn at random. See `Search`."""

    def __init__(
        self,
        config: GenerationConfig,
        prompt: Tokens,
        max_length: int,
        stopping: Stopping,
        generator: np.random.Generator | None,
    ) -> None:
        """Start from `prompt` int64 [batch, tokens], the start token included."""
        batch, self._prompt_length = prompt.shape
        self._config = config
        self._sequences = config.num_return_sequences
        self._max_length = max_length
        self._stopping = stopping
        self._generator = generator
        self._eos = np.array(config.eos_token_ids, dtype=np.int64)
        self.length = self._prompt_length
        shape = (batch, self._sequences)
        self._live = np.full((*shape, max_length), config.fill_token_id, dtype=np.int64)
        self._live[:, :, : self.length] = prompt[:, None]
        self._token_logprobs = np.zeros((*shape, max_length - self.length), dtype=np.float32)
        self._lengths = np.full(shape, self.length)
        self._ended = np.zeros(shape, dtype=bool)
        self._finished = np.full(shape, "end", dtype="<U7")  # unless something cuts the sequence off
        self.done = False

    @property
    def live(self) -> Tokens:
        """See `Search.live`."""
        return self._live[:, :, : self.length]

    @property
    def open_utterances(self) -> NDArray[np.bool_]:
        """See `Search.open_utterances`."""
        return np.logical_not(self._ended.all(axis=1))

    @property
    def decided(self) -> list[list[int]]:
        """See `Search.decided`: every token of the first sequence."""
        return [row[0, : lengths[0]].tolist() for row, lengths in zip(self._live, self._lengths, strict=True)]

    def advance(self, candidates: Candidates, raw: Candidates, cut: Cut | None) -> tuple[PerBeam, PerBeam]:
        """See `Search.advance`."""
        batch = len(candidates.ids)
        beam_idx = np.broadcast_to(np.arange(self._sequences), (batch, self._sequences))
        width = candidates.ids.shape[2]
        scores = np.broadcast_to(candidates.scores, (batch, self._sequences, width))
        if self._ended.any():  # their tokens are ignored: any finite score is valid
            scores = np.where(self._ended[:, :, None], np.float32(0), scores)
        if self._generator is not None:
            chosen = sample(scores, self._generator)
        else:
            chosen = scores.argmax(axis=-1)
            best = np.take_along_axis(scores, chosen[:, :, None], axis=2)
            if not (best > -np.inf).all():
                raise GenerationError(
                    f"no token is possible at position {self.length}: the settings ban all of them, or the model's "
                    "logits are not numbers"
                )
        ids = np.broadcast_to(candidates.ids, (batch, self._sequences, width))
        tokens = np.take_along_axis(ids, chosen[:, :, None], axis=2)[:, :, 0]
        logprobs = raw_logprobs(raw, tokens, beam_idx)

        open_ = ~self._ended
        if self._eos.size:
            tokens = np.where(open_, tokens, self._config.fill_token_id)
        self._live[:, :, self.length] = tokens
        self._token_logprobs[:, :, self.length - self._prompt_length] = np.where(open_, logprobs, np.float32(0))
        self.length += 1
        self._lengths[open_] = self.length
        ends = is_among(tokens, self._eos) | self._stopping.ends(self.live)
        if self.length >= self._max_length:
            cut = "length"
            if self._config.forced_eos_token_ids:  # the model did not choose the end itself
                ends[:] = False
        if cut is not None:
            self._finished[open_ & ~ends] = cut
            ends[:] = True
        self._ended |= ends
        self.done = bool(self._ended.all())
        return tokens.tolist(), beam_idx.tolist()

    def for_utterances(self, utterances: NDArray[np.int64]) -> Self:
        """See `Search.for_utterances`."""
        part = copy(self)
        part._live, part._token_logprobs = self._live[utterances], self._token_logprobs[utterances]
        part._lengths, part._ended = self._lengths[utterances], self._ended[utterances]
        part._finished = self._finished[utterances]
        return part

    def results(self) -> list[list[SearchResult]]:
        """See `Search.results`; the sequences are in the order in which they were drawn."""
        new_tokens = self._lengths - self._prompt_length
        penalty = np.maximum(new_tokens, 1).astype(np.float32) ** np.float32(self._config.length_penalty)
        scores = self._token_logprobs.sum(axis=2, dtype=np.float32) / penalty
        return [
            [
                SearchResult(
                    tokens=self._live[row, i, : length + self._prompt_length].tolist(),
                    score=score,
                    token_logprobs=self._token_logprobs[row, i, :length].tolist(),
                    beam_indices=[i] * length,
                    finish=finish,
                )
                for i, (length, score, finish) in enumerate(zip(*sequences, strict=True))
            ]
            for row, sequences in enumerate(
                zip(new_tokens.tolist(), scores.tolist(), self._finished.tolist(), strict=True)
            )
        ]
