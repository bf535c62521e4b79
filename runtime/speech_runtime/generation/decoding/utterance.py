"""One utterance of a decoding session: its search, and the settings, functions and end that are its own."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import GenerationError
from ..call_options import CallOptions
from ..config import GenerationConfig
from ..search.base import Candidates, Search, SearchResult, Tokens, rows_per_utterance
from ..search.beam import BeamSearch
from ..search.independent import IndependentSearch
from ..search.stopping import Deadline, Stopping, StoppingCriterion
from ..streaming import Stream
from ..token_scores.chain import ProcessorChain
from ..token_scores.maths import log_softmax


class Utterance:
    """The search for the text of one utterance.

    Attributes:
        name: Its name in errors.
        prompt: Token ids int64 [tokens], the start token included.
        longest: Maximal length of a sequence, the prompt included.
        beams: Number of sequences that grow at a time: its rows in a step.
        tokens: Token that a step decodes next for each beam.
        beam_idx: Beam that each of these tokens continues.
        steps: Number of steps so far.
        has_ended: True once it takes no further part in steps.
        error: Error that ended it, if one did.
        companions: Utterances that it goes on beside until all are done: those of a call that records its scores.
        scores: Processed scores of every step, float32 [beams, vocabulary], with `output_scores`.
        logits: Logits of every step, likewise, with `output_logits`.
    """

    def __init__(
        self,
        name: str,
        prompt: Tokens,
        longest: int,
        config: GenerationConfig,
        chain: ProcessorChain,
        options: CallOptions,
        deadline: Deadline,
        criteria: Sequence[StoppingCriterion] = (),
        stream: Stream | None = None,
    ) -> None:
        """Prepare a search for continuations of `prompt` int64 [tokens], the start token included.

        Args:
            name: Its name in errors.
            prompt: Prompt.
            longest: Maximal length of a sequence, the prompt included.
            config: Settings.
            chain: Processors of these settings.
            options: Options of the call.
            deadline: Deadline of the call.
            criteria: Stopping criteria, the caller's and those of the settings.
            stream: Receiver of its tokens.
        """
        self.name = name
        self._deadline = deadline
        self._stream = stream
        self._copies_scores = bool(options.logits_processor)
        self._log_probabilities = config.num_beams > 1
        self._chain = chain
        self._records = options.output_scores or options.output_logits
        # A generator is made only where it is used: to seed one takes longer than to choose a token.
        generator = (options.generator or np.random.default_rng()) if config.do_sample else None
        stopping = Stopping(criteria, not self._records and not self._chain.full_vocab and generator is None)
        kind = BeamSearch if config.num_beams > 1 else IndependentSearch
        self._search: Search = kind(config, prompt, longest, stopping, generator)
        self.prompt = prompt
        self.longest = longest
        self.beams = rows_per_utterance(config)
        self.tokens: Sequence[int] = ()
        self.beam_idx: Sequence[int] = ()
        self.steps = 0
        self.has_ended = False
        self.error: BaseException | None = None
        self.companions: Sequence[Utterance] = ()
        self.scores: list[NDArray[np.float32]] | None = [] if options.output_scores else None
        self.logits: list[NDArray[np.float32]] | None = [] if options.output_logits else None

    @property
    def needs_full_vocab(self) -> bool:
        """True if the next step must return the logits of the whole vocabulary."""
        return self._records or self._chain.needs_full_vocab(self._search.length)

    @property
    def may_need_full_vocab(self) -> bool:
        """True if that may turn out after the next step only."""
        return bool(self._chain.needed)

    def try_to_advance(self, raw: Candidates) -> None:
        """Do as `advance`; an error, or an interrupt, is kept."""
        try:
            self.advance(raw)
        except BaseException as error:
            self.error = error

    def ends(self) -> bool:
        """Return true, now and later, if it has failed, or if it and its companions are done."""
        self.has_ended = self.error is not None or (
            self._search.done and all(each.error or each._search.done for each in self.companions)
        )
        return self.has_ended

    def advance(self, raw: Candidates) -> None:
        """Choose the next token of every beam.

        Args:
            raw: Candidates of the step; of one beam after the first one, since the beams are still alike.

        Raises:
            GenerationError: No token is possible, or the model's scores are not finite.
        """
        if not raw.is_finite:
            raise GenerationError(  # NaN wins or loses every comparison, so the tokens would be arbitrary
                f"the scores of step {self.steps + 1} are not finite for {self.name}: the model's numbers have "
                "overflowed on this audio; leave it out, or export with --precision fp32 if the bundle has another one"
            )
        if self.needs_full_vocab and not raw.full_vocab:
            raw = raw.whole_vocabulary()
        candidates = self._processed(raw)
        if not raw.full_vocab and self._chain.needed and candidates.falls_short_of(self._chain.needed):
            raw = raw.whole_vocabulary()
            candidates = self._processed(raw)
        if self._records:
            self._record(raw, candidates)
        self.tokens, self.beam_idx = self._search.advance(candidates, raw, self._deadline.passed())
        if not self.steps:
            self.beam_idx = (0,) * self.beams
        self.steps += 1
        if self._stream is not None:
            self._stream(self._search.decided)

    def results(self) -> list[SearchResult]:
        """Return the sequences that were found, best first, once it has ended. Its stream gets the rest, and ends.

        Raises:
            GenerationError: The settings do not tell hypotheses from empty places.
        """
        results = self._search.results()
        if self._stream is not None:
            self._stream.end(results[0].tokens)
        return results

    def _processed(self, raw: Candidates) -> Candidates:
        """Return candidates with the scores that the search uses, after all processors."""
        candidates = raw
        if raw.full_vocab and self._log_probabilities:
            candidates = raw.with_scores(log_softmax(raw.scores))
        elif self._copies_scores:  # a caller's processor may write into its arguments
            candidates = raw.with_scores(raw.scores.copy())
        if not self._chain.processors:
            return candidates
        return self._chain(candidates, self._search.length, self._live)

    def _live(self) -> Tokens:
        return self._search.live if self.steps else self._search.live[:, :1]

    def _record(self, raw: Candidates, candidates: Candidates) -> None:
        for records, values in ((self.scores, candidates.scores), (self.logits, raw.scores)):
            if records is not None:
                records.append(np.broadcast_to(values[0], (self.beams, values.shape[2])))
