"""A decoding session: a running batch, whose utterances join and leave between any two steps."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..search.base import Candidates, PerBeam, Tokens
from .utterance import Utterance


class Decoder(Protocol):
    """The part of `CachedDecoder` that a session uses: the caches of some utterances."""

    @property
    def joins(self) -> bool:
        """True if the caches of other utterances can join these, and if each of these can leave at once."""

    def takes(self, newcomers: Any) -> bool:
        """Return true if the utterances of another decoder, `newcomers`, can join these."""

    def start(self, prompt: Tokens, full_vocab: bool, keep_logits: bool = False) -> Sequence[Candidates]:
        """Decode prompts [batch, tokens], as one beam each."""

    def step(
        self, tokens: PerBeam, beam_idx: PerBeam, full_vocab: bool, keep_logits: bool = False
    ) -> Sequence[Candidates]:
        """Decode one token for each beam; `beam_idx` are the beams of the last step that the tokens continue."""

    def select_utterances(self, utterances: Sequence[int]) -> None:
        """Drop all utterances but these, and put them in this order."""

    def join(self, newcomers: Any, beams: int, capacity: int) -> None:
        """Take over the utterances of another decoder, which has decoded their prompts; all get so many beams."""


class DecodeSession:
    """Utterances that are decoded together, each with a prompt, settings, a length and an end of its own.

    Attributes:
        steps: Number of runs of the decoder so far.
    """

    def __init__(self, capacity: int = 1) -> None:
        """Start without utterances; where some join others, memory is allocated for `capacity` of them at once."""
        self.steps = 0
        self._capacity = capacity
        self._decoder: Decoder | None = None
        self._rows: list[Utterance] = []  # of the decoder; some may have ended

    @property
    def running(self) -> list[Utterance]:
        """Utterances that have been admitted and have not ended."""
        return [utterance for utterance in self._rows if not utterance.has_ended]

    @property
    def takes_more(self) -> bool:
        """True if utterances can be admitted before the next step: always, or only while none is running."""
        return self._decoder is None or self._decoder.joins

    def takes(self, decoder: Decoder) -> bool:
        """Return true if the utterances of a decoder can be admitted before the next step."""
        return self._decoder is None or self._decoder.takes(decoder)

    def admit(self, utterances: Sequence[Utterance], decoder: Decoder) -> list[Utterance]:
        """Decode the prompts of utterances, after which they take part in each step.

        Args:
            utterances: Utterances with prompts of one length, and with as many beams as those that are running.
            decoder: Their decoder, whose caches are empty.

        Returns:
            Those that have ended with their first token.
        """
        prompts = np.array([utterance.prompt for utterance in utterances])
        rows = list(utterances)
        ended = self._advance(rows, decoder.start(prompts, *_wanted(rows)))
        self.steps += 1
        if len(ended) == len(rows):
            return ended
        if self._decoder is None:
            self._decoder, self._rows = decoder, rows
            self._drop_ended()
            return ended
        if ended:
            order = _without_ended(rows)
            decoder.select_utterances(order)
            rows = [rows[row] for row in order]
        self._decoder.join(decoder, rows[0].beams, self._capacity)
        self._rows += rows
        return ended

    def step(self) -> list[Utterance]:
        """Decode one token for each beam of each utterance.

        Returns:
            Utterances that have ended with this step: with results, or with an error of their own.
        """
        if self._decoder is None:
            return []
        rows = self._rows
        idle = {utterance.beams: (0,) * utterance.beams for utterance in rows}  # of those that have ended
        tokens = [idle[row.beams] if row.has_ended else row.tokens for row in rows]
        beam_idx = [idle[row.beams] if row.has_ended else row.beam_idx for row in rows]
        ended = self._advance(rows, self._decoder.step(tokens, beam_idx, *_wanted(rows)))
        self.steps += 1
        if ended:
            self._drop_ended()
        return ended

    def evict(self, utterance: Utterance) -> None:
        """Let an utterance go before it has ended."""
        utterance.has_ended = True
        self._drop_ended()

    def clear(self) -> None:
        """Let all utterances go."""
        self._decoder, self._rows = None, []

    def _advance(self, rows: Sequence[Utterance], found: Sequence[Candidates]) -> list[Utterance]:
        """Let each utterance choose its next tokens, and return those that end; an error ends only its own."""
        before = [utterance.has_ended for utterance in rows]
        for utterance, candidates, had_ended in zip(rows, found, before, strict=True):
            if not had_ended:
                utterance.try_to_advance(candidates)
        return [
            utterance for utterance, had_ended in zip(rows, before, strict=True) if utterance.ends() and not had_ended
        ]

    def _drop_ended(self) -> None:
        """Drop the utterances that have ended; where that copies all caches, once they are half of them."""
        order = _without_ended(self._rows)
        if not order:
            self.clear()
        elif self._decoder is not None and (self._decoder.joins or 2 * len(order) <= len(self._rows)):
            self._decoder.select_utterances(order)
            self._rows = [self._rows[row] for row in order]


def _wanted(utterances: Sequence[Utterance]) -> tuple[bool, bool]:
    """Return whether all utterances need the logits of the next step, and whether any of them may."""
    going_on = [utterance for utterance in utterances if not utterance.has_ended]
    needed = [utterance.needs_full_vocab for utterance in going_on]
    if all(needed):
        return True, False
    return False, any(needed) or any(utterance.may_need_full_vocab for utterance in going_on)


def _without_ended(rows: Sequence[Utterance]) -> list[int]:
    """Return the positions of the utterances that go on, those at the end moved to where others have ended."""
    going_on = [row for row, utterance in enumerate(rows) if not utterance.has_ended]
    moved = [row for row in going_on if row >= len(going_on)]
    return [moved.pop() if rows[row].has_ended else row for row in range(len(going_on))]
