"""The decoding loop: decoder, processing and search, joined."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...bundle.model_facts import DecoderFacts
from ...errors import GenerationError
from ..config import GenerationConfig
from ..output import GenerateOutput
from ..scores.chain import Lengths, Processing, processing
from ..scores.maths import Processor
from ..search.beam import BeamSearch
from ..search.candidates import Candidates, log_softmax
from ..search.independent import IndependentSearch
from ..search.state import Hypotheses, Rows, Search, Tokens
from ..search.stopping import Deadline, Stopping
from .caches.static import check_static_length

logger = logging.getLogger(__name__)


class Decoder(Protocol):
    """What the loop asks of a decoder; see `CachedDecoder`."""

    def start(self, prompt: Tokens, whole: bool) -> Candidates:
        """Decode prompts [batch, tokens], as one beam each."""

    def step(self, tokens: Rows, beams: Rows, whole: bool) -> Candidates:
        """Decode a token for each beam, after the beams of the last step that are continued."""

    def keep(self, rows: Tokens) -> None:
        """Go on with some utterances only."""


@dataclass(frozen=True)
class Hooks:
    """What a caller adds to a search.

    Attributes:
        processors: of scores; after those of the settings.
        stopping: criteria of sequences; besides end tokens and lengths.
        deadline: of the whole search.
        on_step: told the tokens of each utterance that are decided, after every step.
        generator: of random numbers, for sampling; a new one where it is None.
        keep_scores: return what was chosen by at every step.
        keep_logits: return the logits of every step.
    """

    processors: Sequence[Processor] = ()
    stopping: Stopping = field(default_factory=Stopping)
    deadline: Deadline = field(default_factory=Deadline)
    on_step: Callable[[list[list[int]]], None] | None = None
    generator: np.random.Generator | None = None
    keep_scores: bool = False
    keep_logits: bool = False


def decode(
    decoder: Decoder, facts: DecoderFacts, prompt: Tokens, config: GenerationConfig, hooks: Hooks | None = None
) -> GenerateOutput:
    """Search for the continuations of `prompt` int64 [batch, tokens], the start token included.

    Raises:
        GenerationError: the lengths that are set do not fit the prompt or the decoder, or nothing is possible.
    """
    hooks = hooks or Hooks()
    shortest, longest = config.length_range(prompt.shape[1], facts.max_positions)
    check_static_length(facts, longest)
    lengths = Lengths(prompt.shape[1], shortest, longest)
    steps = processing(config, lengths, facts.top_k, facts.vocab_size, hooks.processors)
    whole = hooks.keep_scores or hooks.keep_logits
    if whole or steps.whole:
        logger.debug("the settings need the whole vocabulary of %d tokens at every step", facts.vocab_size)
    kind = BeamSearch if config.num_beams > 1 else IndependentSearch
    generator = _generator(config, hooks)
    stopping = replace(hooks.stopping, when_settled=not whole and not steps.whole and generator is None)
    search = kind(config, prompt, longest, stopping, generator)
    return _Loop(decoder, search, steps, whole, config, hooks).run(prompt)


def _generator(config: GenerationConfig, hooks: Hooks) -> np.random.Generator | None:
    """What is drawn with; None where nothing is, for it takes longer to seed one than to choose a token."""
    return (hooks.generator or np.random.default_rng()) if config.do_sample else None


class _Loop:
    """One search. Utterances whose result is certain are set aside once half of the batch is."""

    def __init__(
        self,
        decoder: Decoder,
        search: Search,
        steps: Processing,
        whole: bool,
        config: GenerationConfig,
        hooks: Hooks,
    ) -> None:
        self._decoder = decoder
        self._search = search
        self._steps = steps
        self._whole = whole
        self._log_probabilities = config.num_beams > 1
        self._fill = config.fill_token_id
        self._hooks = hooks
        self._keeps = hooks.keep_scores or hooks.keep_logits
        self._rows = np.arange(len(search.live))
        self._beams = search.live.shape[1]
        self._done: list[tuple[Tokens, Hypotheses]] = []
        self._scores: list[NDArray[np.float32]] = []
        self._logits: list[NDArray[np.float32]] = []

    def run(self, prompt: Tokens) -> GenerateOutput:
        # The beams are alike until the first token is chosen: the prompt is decoded once, as one beam for all of them.
        tokens: Rows = ()
        beams: Rows = ()
        count = 0
        while not self._search.done:
            whole = self._whole or self._steps.needs_whole(self._search.length)
            raw = self._decoder.step(tokens, beams, whole) if count else self._decoder.start(prompt, whole)
            self._check_numbers(raw, count + 1)
            candidates = self._to_choose_by(raw)
            if self._steps.steps:
                candidates = self._steps(candidates, self._search.length, self._live if count else self._first_live)
            if self._keeps:
                self._keep(raw, candidates)
            tokens, beams = self._search.advance(candidates, raw, self._hooks.deadline.passed())
            if not count:
                beams = [[0] * self._beams] * len(beams)
            count += 1
            if self._hooks.on_step is not None:
                self._hooks.on_step(self._search.decided)
            if len(tokens) > 1:
                tokens, beams = self._without_closed(tokens, beams)
        self._done.append((self._rows, self._search.result()))
        return self._output(prompt.shape[1], count)

    def _check_numbers(self, raw: Candidates, step: int) -> None:
        """NaN would win or lose every comparison, and words would come out that nothing speaks for."""
        if rows := raw.rows_without_numbers():
            utterances = ", ".join(str(self._rows[row]) for row in rows)
            raise GenerationError(
                f"the scores of step {step} are not finite for utterance {utterances} of the batch, counted from 0: "
                "the model's numbers have overflowed on this audio; leave it out, or export with --precision fp32 "
                "if the bundle has another one"
            )

    def _to_choose_by(self, raw: Candidates) -> Candidates:
        if raw.whole and self._log_probabilities:
            return raw.with_scores(log_softmax(raw.scores))
        # A caller's processor may write into what it is given.
        return raw.with_scores(raw.scores.copy()) if self._hooks.processors else raw

    def _live(self) -> Tokens:
        return self._search.live

    def _first_live(self) -> Tokens:
        return self._search.live[:, :1]

    def _without_closed(self, tokens: Rows, beams: Rows) -> tuple[Rows, Rows]:
        if self._search.done or self._keeps or self._hooks.on_step is not None:
            return tokens, beams
        open_rows = self._search.open_rows
        if not 0 < 2 * open_rows.sum() <= len(open_rows):
            return tokens, beams
        (closed,), (rows,) = np.nonzero(~open_rows), np.nonzero(open_rows)
        self._done.append((self._rows[closed], self._search.rows(closed).result()))
        self._search, self._rows = self._search.rows(rows), self._rows[rows]
        self._decoder.keep(rows)
        return [tokens[row] for row in rows.tolist()], [beams[row] for row in rows.tolist()]

    def _keep(self, raw: Candidates, candidates: Candidates) -> None:
        for wanted, kept, values in (
            (self._hooks.keep_scores, self._scores, candidates.scores),
            (self._hooks.keep_logits, self._logits, raw.scores),
        ):
            if wanted:
                shape = (values.shape[0], self._beams, values.shape[2])
                kept.append(np.broadcast_to(values, shape).reshape(-1, values.shape[2]))

    def _found(self, prompt_length: int) -> Hypotheses:
        """The results of all utterances, in their order."""
        parts = [found for _, found in self._done]
        if len(parts) == 1:
            return parts[0]
        order = np.argsort(np.concatenate([rows for rows, _ in self._done]))
        longest = max(part.sequences.shape[2] for part in parts)

        def joined(arrays: list[NDArray[Any]], width: int, filler: float) -> NDArray[Any]:
            whole: NDArray[Any] = np.concatenate([_padded(array, width, filler) for array in arrays])[order]
            return whole

        return Hypotheses(
            sequences=joined([part.sequences for part in parts], longest, self._fill),
            lengths=np.concatenate([part.lengths for part in parts])[order],
            scores=np.concatenate([part.scores for part in parts])[order],
            token_logprobs=joined([part.token_logprobs for part in parts], longest - prompt_length, 0.0),
            beam_indices=joined([part.beam_indices for part in parts], longest - prompt_length, -1),
            finished=np.concatenate([part.finished for part in parts])[order],
        )

    def _output(self, prompt_length: int, steps: int) -> GenerateOutput:
        found = self._found(prompt_length)
        batch, returned = found.scores.shape

        def flat(values: NDArray[Any]) -> NDArray[Any]:
            return values.reshape(batch * returned, *values.shape[2:])

        beams = found.beam_indices
        if batch > 1:
            beams = np.where(beams < 0, -1, beams + (np.arange(batch) * self._beams)[:, None, None])
        return GenerateOutput(
            sequences=flat(found.sequences),
            sequences_scores=flat(found.scores),
            token_logprobs=flat(found.token_logprobs),
            beam_indices=flat(beams),
            steps=steps,
            lengths=flat(found.lengths),
            finished=flat(found.finished),
            scores=tuple(self._scores) if self._hooks.keep_scores else None,
            logits=tuple(self._logits) if self._hooks.keep_logits else None,
        )


def _padded(values: NDArray[Any], width: int, filler: float) -> NDArray[Any]:
    """Values [batch, returned, …] filled up to [batch, returned, `width`]."""
    missing = width - values.shape[2]
    return np.pad(values, ((0, 0), (0, 0), (0, missing)), constant_values=filler) if missing else values
