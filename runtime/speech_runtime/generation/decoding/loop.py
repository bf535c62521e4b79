"""The decoding loop: decoder, processors and search, joined."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...bundle.model_facts import DecoderFacts
from ...errors import GenerationError
from ..call_options import CallOptions
from ..config import GenerationConfig
from ..search.base import Candidates, PerBeam, Search, SearchResult, Tokens, rows_per_utterance
from ..search.beam import BeamSearch
from ..search.independent import IndependentSearch
from ..search.stopping import Deadline, Stopping, StoppingCriterion
from ..token_scores.chain import Lengths, processor_chain
from ..token_scores.maths import log_softmax

logger = logging.getLogger(__name__)


class Decoder(Protocol):
    """The part of `CachedDecoder` that the loop uses."""

    def start(self, prompt: Tokens, full_vocab: bool, keep_logits: bool = False) -> Candidates:
        """Decode prompts [batch, tokens], as one beam each."""

    def step(self, tokens: PerBeam, beam_idx: PerBeam, full_vocab: bool, keep_logits: bool = False) -> Candidates:
        """Decode one token for each beam; `beam_idx` are the beams of the last step that the tokens continue."""

    def select_utterances(self, utterances: NDArray[np.int64]) -> None:
        """Drop all utterances but these."""


class DecodingLoop:
    """One search for utterances whose prompts have the same length.

    Utterances whose result is certain leave the batch as soon as they are half of it.

    Attributes:
        steps: Number of steps of the decoder so far.
        scores: Processed scores of every step, float32 [utterances × beams, vocabulary]; None without `output_scores`.
        logits: Logits of every step, likewise; None without `output_logits`.
    """

    def __init__(
        self,
        decoder: Decoder,
        facts: DecoderFacts,
        prompt: Tokens,
        lengths: Lengths,
        config: GenerationConfig,
        options: CallOptions,
        deadline: Deadline,
        criteria: Sequence[StoppingCriterion],
        on_step: Callable[[list[list[int]]], None] | None,
    ) -> None:
        """Prepare a search for continuations of `prompt` int64 [batch, tokens], the start token included.

        Args:
            decoder: Decoder of these utterances.
            facts: Facts of the decoder.
            prompt: Prompts.
            lengths: Lengths of the prompts and of the sequences.
            config: Settings.
            options: Options of the call.
            deadline: Deadline of the call.
            criteria: Stopping criteria, the caller's and those of the settings.
            on_step: Function that takes the decided tokens of each utterance after every step.
        """
        self._decoder = decoder
        self._prompt = prompt
        self._deadline = deadline
        self._on_step = on_step
        self._copies_scores = bool(options.logits_processor)
        self._log_probabilities = config.num_beams > 1
        self._chain = processor_chain(config, lengths, facts.top_k, facts.vocabulary, options.checked_processors())
        self._records = options.output_scores or options.output_logits
        if self._records or self._chain.full_vocab:
            logger.debug("the settings need the whole vocabulary of %d tokens at every step", facts.vocab_size)
        # A generator is made only where it is used: to seed one takes longer than to choose a token.
        generator = (options.generator or np.random.default_rng()) if config.do_sample else None
        stopping = Stopping(criteria, not self._records and not self._chain.full_vocab and generator is None)
        kind = BeamSearch if config.num_beams > 1 else IndependentSearch
        self._search: Search = kind(config, prompt, lengths.longest, stopping, generator)
        self._utterances = np.arange(len(prompt))
        self._beams = rows_per_utterance(config)
        self._found: list[list[SearchResult]] = [[] for _ in prompt]
        self._scores: list[NDArray[np.float32]] | None = [] if options.output_scores else None
        self._logits: list[NDArray[np.float32]] | None = [] if options.output_logits else None
        self.steps = 0

    @property
    def scores(self) -> tuple[NDArray[np.float32], ...] | None:
        """See the class."""
        return None if self._scores is None else tuple(self._scores)

    @property
    def logits(self) -> tuple[NDArray[np.float32], ...] | None:
        """See the class."""
        return None if self._logits is None else tuple(self._logits)

    def run(self) -> list[list[SearchResult]]:
        """Search to the end, and return the sequences of each utterance, best first.

        Raises:
            GenerationError: No token is possible, or the model's scores are not finite.
        """
        # The beams are alike until the first token is chosen: the prompt is decoded once, as one beam for all of them.
        tokens: PerBeam = ()
        beam_idx: PerBeam = ()
        chain = self._chain
        while not self._search.done:
            full_vocab = self._records or chain.needs_full_vocab(self._search.length)
            keep_logits = bool(chain.needed) and not full_vocab
            if self.steps:
                raw = self._decoder.step(tokens, beam_idx, full_vocab, keep_logits)
            else:
                raw = self._decoder.start(self._prompt, full_vocab, keep_logits)
            self._check_finite(raw)
            candidates = self._processed(raw)
            if keep_logits and candidates.falls_short_of(chain.needed):
                raw = raw.whole_vocabulary()
                candidates = self._processed(raw)
            if self._records:
                self._record(raw, candidates)
            tokens, beam_idx = self._search.advance(candidates, raw, self._deadline.passed())
            if not self.steps:
                beam_idx = [[0] * self._beams] * len(beam_idx)
            self.steps += 1
            if self._on_step is not None:
                self._on_step(self._search.decided)
            if len(tokens) > 1:
                tokens, beam_idx = self._without_closed(tokens, beam_idx)
        self._collect(self._utterances, self._search)
        return self._found

    def _check_finite(self, raw: Candidates) -> None:
        """Refuse scores that are not finite: NaN wins or loses every comparison, so the tokens would be arbitrary."""
        if rows := raw.non_finite_utterances():
            utterances = ", ".join(str(self._utterances[row]) for row in rows)
            raise GenerationError(
                f"the scores of step {self.steps + 1} are not finite for utterance {utterances} of the batch, counted "
                "from 0: the model's numbers have overflowed on this audio; leave it out, or export with "
                "--precision fp32 if the bundle has another one"
            )

    def _processed(self, raw: Candidates) -> Candidates:
        candidates = self._for_search(raw)
        if not self._chain.processors:
            return candidates
        return self._chain(candidates, self._search.length, self._live if self.steps else self._first_live)

    def _for_search(self, raw: Candidates) -> Candidates:
        """Return candidates with the scores that the search uses, which processors may change."""
        if raw.full_vocab and self._log_probabilities:
            return raw.with_scores(log_softmax(raw.scores))
        # A caller's processor may write into its arguments.
        return raw.with_scores(raw.scores.copy()) if self._copies_scores else raw

    def _live(self) -> Tokens:
        return self._search.live

    def _first_live(self) -> Tokens:
        return self._search.live[:, :1]

    def _without_closed(self, tokens: PerBeam, beam_idx: PerBeam) -> tuple[PerBeam, PerBeam]:
        if self._search.done or self._records or self._on_step is not None:
            return tokens, beam_idx
        is_open = self._search.open_utterances
        if not 0 < 2 * is_open.sum() <= len(is_open):
            return tokens, beam_idx
        (closed,), (open_,) = np.nonzero(~is_open), np.nonzero(is_open)
        self._collect(self._utterances[closed], self._search.for_utterances(closed))
        self._search, self._utterances = self._search.for_utterances(open_), self._utterances[open_]
        self._decoder.select_utterances(open_)
        return [tokens[row] for row in open_.tolist()], [beam_idx[row] for row in open_.tolist()]

    def _collect(self, utterances: NDArray[np.int64], search: Search) -> None:
        for utterance, results in zip(utterances.tolist(), search.results(), strict=True):
            self._found[utterance] = results

    def _record(self, raw: Candidates, candidates: Candidates) -> None:
        for records, values in ((self._scores, candidates.scores), (self._logits, raw.scores)):
            if records is not None:
                shape = (values.shape[0], self._beams, values.shape[2])
                records.append(np.broadcast_to(values, shape).reshape(-1, values.shape[2]))
