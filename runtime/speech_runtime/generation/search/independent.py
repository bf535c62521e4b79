"""Greedy search and sampling: sequences that do not compete, as in transformers' `GenerationMixin._sample`."""

from collections.abc import Sequence

import numpy as np

from ...errors import GenerationError
from ..config import GenerationConfig
from ..token_scores.sampling import sample
from .base import Candidates, SearchResult, Tokens
from .ranking import raw_logprobs
from .stopping import Cut, Finish, Stopping


class IndependentSearch:
    """One sequence made of the best tokens; or several, drawn at random. See `Search`."""

    def __init__(
        self,
        config: GenerationConfig,
        prompt: Tokens,
        max_length: int,
        stopping: Stopping,
        generator: np.random.Generator | None,
    ) -> None:
        """Start from `prompt` int64 [tokens], the start token included."""
        self._prompt_length = len(prompt)
        self._sequences = [_Sequence(prompt.tolist()) for _ in range(config.num_return_sequences)]
        self._beam_idx = range(config.num_return_sequences)
        self._max_length = max_length
        self._stopping = stopping
        self._generator = generator
        self._ends = frozenset(config.eos_token_ids)
        self._forces_end = bool(config.forced_eos_token_ids)
        self._fill = config.fill_token_id
        self._length_penalty = config.length_penalty
        self.length = self._prompt_length
        self.done = False

    @property
    def live(self) -> Tokens:
        """See `Search.live`."""
        return np.array([[sequence.tokens for sequence in self._sequences]])

    @property
    def decided(self) -> list[int]:
        """See `Search.decided`: every token of the first sequence."""
        first = self._sequences[0]
        return first.tokens[: first.length]

    def advance(self, candidates: Candidates, raw: Candidates, cut: Cut | None) -> tuple[Sequence[int], Sequence[int]]:
        """See `Search.advance`."""
        if candidates.is_sorted and self._generator is None:
            _, ((logprob, *_),), ((token, *_),) = candidates.first(1)
            self._check_possible(logprob)
            tokens, logprobs = [token], [logprob]
        else:
            tokens, logprobs = self._chosen(candidates, raw)
        is_open = [sequence.finish is None for sequence in self._sequences]
        if self._ends:
            tokens = [token if open_ else self._fill for token, open_ in zip(tokens, is_open, strict=True)]
        for sequence, token, logprob in zip(self._sequences, tokens, logprobs, strict=True):
            sequence.append(token, logprob)
        self.length += 1
        if self.length >= self._max_length:
            cut = "length"
        # Where an end is forced, the model did not choose it itself.
        ends = [not (cut == "length" and self._forces_end) and token in self._ends for token in tokens]
        if self._stopping.criteria and not (cut == "length" and self._forces_end):
            ends = (self._stopping.ends(self.live)[0] | np.array(ends)).tolist()
        for sequence, end in zip(self._sequences, ends, strict=True):
            if sequence.finish is None:
                sequence.finish = "end" if end else cut
        self.done = all(sequence.finish is not None for sequence in self._sequences)
        return tokens, self._beam_idx

    def results(self) -> list[SearchResult]:
        """See `Search.results`; the sequences are in the order in which they were drawn."""
        return [
            sequence.result(row, self._prompt_length, self._length_penalty)
            for row, sequence in enumerate(self._sequences)
        ]

    def _chosen(self, candidates: Candidates, raw: Candidates) -> tuple[list[int], list[float]]:
        """Return the next token of each sequence, drawn or the best, and the model's log-probability of it."""
        shape = (1, len(self._sequences), candidates.ids.shape[2])
        scores, ids = np.broadcast_to(candidates.scores, shape), np.broadcast_to(candidates.ids, shape)
        ended = [sequence.finish is not None for sequence in self._sequences]
        if any(ended):  # their tokens are ignored: any finite score is valid
            scores = np.where(np.array(ended)[:, None], np.float32(0), scores)
        if self._generator is not None:
            chosen = sample(scores, self._generator)
        else:
            chosen = scores.argmax(axis=-1)
            self._check_possible(np.take_along_axis(scores, chosen[:, :, None], axis=2).min())
        tokens = np.take_along_axis(ids, chosen[:, :, None], axis=2)[:, :, 0]
        logprobs = raw_logprobs(raw, tokens, np.arange(len(self._sequences))[None])
        return tokens[0].tolist(), logprobs[0].tolist()

    def _check_possible(self, score: float) -> None:
        if not score > -np.inf:
            raise GenerationError(
                f"no token is possible at position {self.length}: the settings ban all of them, or the model's "
                "logits are not numbers"
            )


class _Sequence:
    """A sequence that grows.

    Attributes:
        tokens: Tokens, the prompt and those that fill it up behind its end included.
        length: Number of tokens up to its end.
        finish: How it ended; None while it grows.
    """

    def __init__(self, prompt: list[int]) -> None:
        self.tokens = prompt
        self.length = len(prompt)
        self.finish: Finish | None = None
        self._logprobs: list[float] = []

    def append(self, token: int, logprob: float) -> None:
        """Add a token; one behind the end does not count."""
        self.tokens.append(token)
        if self.finish is None:
            self.length += 1
            self._logprobs.append(logprob)

    def result(self, row: int, prompt_length: int, length_penalty: float) -> SearchResult:
        """Return the sequence as that of `row`."""
        new_tokens = self.length - prompt_length
        penalty = np.float32(max(new_tokens, 1)) ** np.float32(length_penalty)
        return SearchResult(
            tokens=self.tokens[: self.length],
            score=float(np.array(self._logprobs, dtype=np.float32).sum() / penalty),
            token_logprobs=self._logprobs,
            beam_indices=[row] * new_tokens,
            finish=self.finish or "end",
        )
