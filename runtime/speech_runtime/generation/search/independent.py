"""Greedy search and sampling: sequences that do not compete, as in transformers' `GenerationMixin._sample`."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...errors import GenerationError
from ..config import GenerationConfig
from ..scores.sampling import sample
from .candidates import Candidates
from .finish import Cut
from .state import Hypotheses, Rows, Tokens, is_among, raw_logprobs, take_rows
from .stopping import Stopping


class IndependentSearch:
    """One sequence an utterance, the best token after the other; or several, drawn at random."""

    without_rows = frozenset({"_eos"})

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
        self._finished = np.full(shape, "end", dtype="<U7")  # unless something cuts it off
        self.done = False

    @property
    def live(self) -> Tokens:
        """See `Search.live`."""
        return self._live[:, :, : self.length]

    @property
    def open_rows(self) -> NDArray[np.bool_]:
        """See `Search.open_rows`."""
        return np.logical_not(self._ended.all(axis=1))

    @property
    def decided(self) -> list[list[int]]:
        """See `Search.decided`: every token of the first sequence."""
        return [row[0, : lengths[0]].tolist() for row, lengths in zip(self._live, self._lengths, strict=True)]

    def advance(self, candidates: Candidates, raw: Candidates, cut: Cut | None) -> tuple[Rows, Rows]:
        """See `Search.advance`."""
        batch = len(candidates.ids)
        beam_idx = np.broadcast_to(np.arange(self._sequences), (batch, self._sequences))
        width = candidates.ids.shape[2]
        scores = np.broadcast_to(candidates.scores, (batch, self._sequences, width))
        if self._ended.any():  # whatever their scores are, nothing comes of them
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
        ends = is_among(tokens, self._eos) | self._stopping.of(self.live)
        if self.length >= self._max_length:
            cut = "length"
            if self._config.forced_eos_token_ids:  # the end is not the model's word
                ends[:] = False
        if cut is not None:
            self._finished[open_ & ~ends] = cut
            ends[:] = True
        self._ended |= ends
        self.done = bool(self._ended.all())
        return tokens.tolist(), beam_idx.tolist()

    def rows(self, rows: Tokens) -> Self:
        """See `Search.rows`."""
        kept: Self = take_rows(self, rows)
        return kept

    def result(self) -> Hypotheses:
        """See `Search.result`; the sequences are in the order in which they were drawn."""
        new_tokens = self._lengths - self._prompt_length
        penalty = np.maximum(new_tokens, 1).astype(np.float32) ** np.float32(self._config.length_penalty)
        longest = int(self._lengths.max())
        taken = slice(0, longest - self._prompt_length)
        beams = np.broadcast_to(np.arange(self._sequences)[None, :, None], self._token_logprobs.shape)
        behind = np.arange(self._token_logprobs.shape[2]) >= new_tokens[:, :, None]
        return Hypotheses(
            sequences=self._live[:, :, :longest],
            lengths=self._lengths,
            scores=self._token_logprobs.sum(axis=2, dtype=np.float32) / penalty,
            token_logprobs=self._token_logprobs[:, :, taken],
            beam_indices=np.where(behind, -1, beams)[:, :, taken],
            finished=self._finished,
        )
