"""Generation settings: one frozen, validated dataclass with the names and meaning of transformers' GenerationConfig."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args, get_type_hints

from ..bundle.loading import read_configuration
from ..bundle.vocabulary import Vocabulary
from ..dataclass_json import FieldError, listed, problems, updated
from ..errors import GenerationError
from .setting_types import (
    Beams,
    Biases,
    Candidates,
    Cutoff,
    Decay,
    Exponent,
    Factor,
    Length,
    LengthOrZero,
    Probability,
    Samples,
    Seconds,
    Share,
    TokenId,
    plain_values,
    supported_settings,
    vocabulary_problems,
)

DEFAULT_NEW_TOKENS = 20
"""Number of new tokens that transformers generates at most where no length is set."""


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of a search: greedy with one beam, beam search with more; `do_sample` makes either draw its tokens.

    A setting is declared once, here: the checks and the type of its command-line flag follow from the field's type, and
    the flag's help is the description below. `GenerationSettings` repeats the names for type checkers.

    Attributes:
        max_new_tokens: Largest number of new tokens. Overrides `max_length`.
        max_length: Largest number of tokens, the prompt included.
        min_new_tokens: Smallest number of new tokens. Overrides `min_length`.
        min_length: Smallest number of tokens, the prompt included.
        max_time: Seconds after which the search of a batch stops and returns its results so far.
        stop_strings: String, or list of strings, that ends a sequence once its text contains it.
        num_beams: Number of hypotheses kept for each utterance; 1 is greedy search.
        num_return_sequences: Number of hypotheses returned for each utterance, best first: at most `num_beams`, or any
            number of samples.
        length_penalty: Exponent of the length by which beam search divides a log-probability: above 0 favours long
            sequences, below 0 short ones.
        early_stopping: Condition that ends beam search. True: `num_beams` hypotheses are finished. False: no live
            hypothesis, at its present length, can beat the worst finished one. "never": none can at any length.
        do_sample: If true, draw tokens by their probabilities.
        temperature: Divisor of the scores before sampling: below 1 favours likely tokens.
        top_k: Sample from this many of the likeliest tokens; 0 is all of them.
        top_p: Sample from the fewest tokens whose probabilities add up to this, likeliest first.
        min_p: Sample from tokens with at least this share of the likeliest token's probability.
        typical_p: Sample from the tokens closest to the expected information whose probabilities add up to this.
        epsilon_cutoff: Sample from tokens with at least this probability.
        eta_cutoff: Sample from tokens with at least this probability, or less where the distribution is flat.
        top_h: Sample from the likeliest tokens that have this share of the entropy together.
        repetition_penalty: Divisor of the scores of tokens that occurred before: above 1 makes them rarer. Negative
            scores are multiplied by it.
        no_repeat_ngram_size: Number of tokens in a row that may occur only once; 0 is no limit.
        exponential_decay_length_penalty: START and FACTOR: after START new tokens, each further one makes the end
            likelier by FACTOR.
        suppress_tokens: Tokens that are never generated.
        begin_suppress_tokens: Tokens that are not generated first.
        bad_words_ids: Sequences of tokens that are never generated, such as [[5, 6], [7]].
        sequence_bias: Number added to the score of a sequence's last token when its other tokens precede it, such as
            [[[5, 6], -2.0]].
        forced_bos_token_id: First new token after a prompt of one token.
        forced_eos_token_id: Token, or list of tokens, that ends a sequence at its maximal length.
        decoder_start_token_id: First token of every sequence; a list has one for each utterance. `bos_token_id` if
            not set.
        bos_token_id: First token of every sequence if `decoder_start_token_id` is not set.
        eos_token_id: Token, or list of tokens, that ends a sequence.
        pad_token_id: Token that fills a batch after the end of a sequence; the first `eos_token_id` if not set.
        renormalize_logits: If true, turn the scores that the other settings leave into probabilities again.
        remove_invalid_values: If true, replace NaN by 0 and infinities by the largest numbers.
    """

    max_new_tokens: Length | None = None
    max_length: Length | None = None
    min_new_tokens: LengthOrZero | None = None
    min_length: LengthOrZero | None = None
    max_time: Seconds | None = None
    stop_strings: str | tuple[str, ...] | None = None
    num_beams: Beams = 1
    num_return_sequences: Samples = 1
    length_penalty: Exponent = 1.0
    early_stopping: bool | Literal["never"] = False
    do_sample: bool = False
    temperature: Factor = 1.0
    top_k: Candidates | None = 50
    top_p: Probability = 1.0
    min_p: Share | None = None
    typical_p: Probability = 1.0
    epsilon_cutoff: Cutoff = 0.0
    eta_cutoff: Cutoff = 0.0
    top_h: Probability | None = None
    repetition_penalty: Factor = 1.0
    no_repeat_ngram_size: LengthOrZero = 0
    exponential_decay_length_penalty: Decay | None = None
    suppress_tokens: tuple[int, ...] | None = None
    begin_suppress_tokens: tuple[int, ...] | None = None
    bad_words_ids: tuple[tuple[TokenId, ...], ...] | None = None
    sequence_bias: Biases | None = None
    forced_bos_token_id: TokenId | None = None
    forced_eos_token_id: TokenId | tuple[TokenId, ...] | None = None
    decoder_start_token_id: TokenId | tuple[TokenId, ...] | None = None
    bos_token_id: TokenId | None = None
    eos_token_id: TokenId | tuple[TokenId, ...] | None = None
    pad_token_id: TokenId | None = None
    renormalize_logits: bool = False
    remove_invalid_values: bool = False

    def __post_init__(self) -> None:
        """Refuse values that are out of range or contradict each other."""
        if found := problems(self) or list(self._contradictions()):
            raise GenerationError(listed(found))

    def _contradictions(self) -> Iterator[str]:
        independent = self.do_sample and self.num_beams == 1
        if self.num_return_sequences > self.num_beams and not independent:
            yield (
                f"num_return_sequences is {self.num_return_sequences} but num_beams only {self.num_beams}; "
                "raise num_beams or return fewer"
            )
        if self.exponential_decay_length_penalty is not None and not self.eos_token_ids:
            yield "exponential_decay_length_penalty needs an eos_token_id"
        if any(not tokens for tokens in self.bad_words_ids or ()):
            yield "bad_words_ids has an empty sequence"
        if any(not tokens for tokens, _ in self.sequence_bias or ()):
            yield "sequence_bias has an empty sequence"

    @classmethod
    def from_file(cls, path: Path, vocabulary: Vocabulary | None = None) -> "GenerationConfig":
        """Read a `generation_config.json`.

        Args:
            path: Path of the file.
            vocabulary: Vocabulary of the decoder. If given, it must have the token ids.

        Raises:
            BundleError: The file cannot be read.
            GenerationError: A setting is out of range, or changes the output and is not supported.
        """
        content = read_configuration(path)
        given = {name: value for name, value in content.items() if value is not None}
        try:
            config = cls().updated(given)
            if vocabulary is not None:
                config.check_vocabulary(vocabulary)
        except GenerationError as error:
            raise GenerationError(f"{path.name}: {error}") from None
        return config

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Raise `GenerationError` if a token to start with, to force or to end at is not in `vocabulary`."""
        if found := vocabulary_problems(self, vocabulary):
            raise GenerationError(listed(found))

    def updated(self, settings: Mapping[str, Any], keywords: Iterable[str] = ()) -> "GenerationConfig":
        """Return a copy with the settings of a call.

        Args:
            settings: Settings by their names.
            keywords: Other keywords of the call, to suggest for a misspelt one.

        Raises:
            GenerationError: A setting is unknown, has the wrong type or is out of range, or two contradict each other.
        """
        if not settings:
            return self
        try:
            return updated(self, supported_settings(plain_values(settings, _MAY_BE_NONE)))
        except FieldError as error:
            known = [declared.name for declared in fields(self)]
            raise GenerationError(listed(_with_suggestions(error.problems, known, keywords))) from None

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """All end tokens; empty where sequences end only at their maximal length."""
        return _as_tuple(self.eos_token_id)

    @property
    def forced_eos_token_ids(self) -> tuple[int, ...]:
        """All tokens forced at the maximal length."""
        return _as_tuple(self.forced_eos_token_id)

    @property
    def start_token_id(self) -> int | tuple[int, ...] | None:
        """First token of every sequence, or one for each utterance; None where it is not set."""
        return self.bos_token_id if self.decoder_start_token_id is None else self.decoder_start_token_id

    def start_token_ids(self, batch: int) -> tuple[int, ...]:
        """Return the first token of the sequences of each utterance.

        Raises:
            GenerationError: Neither `decoder_start_token_id` nor `bos_token_id` is set, or their number is not `batch`.
        """
        start = self.start_token_id
        if start is None:
            raise GenerationError(
                "decoder_start_token_id is not set in the bundle's generation_config.json, nor is bos_token_id; "
                "give decoder_start_token_id (--decoder-start-token-id), the token that every text starts from"
            )
        if isinstance(start, int):
            return (start,) * batch
        if len(start) != batch:
            raise GenerationError(
                f"decoder_start_token_id has {len(start)} tokens for {batch} utterances; give one for each"
            )
        return start

    @property
    def stops(self) -> tuple[str, ...]:
        """All stop strings."""
        if self.stop_strings is None:
            return ()
        return (self.stop_strings,) if isinstance(self.stop_strings, str) else self.stop_strings

    @property
    def fill_token_id(self) -> int:
        """Token that fills the rows of a batch after their end; -1 without such a token.

        As in transformers, beam search takes a `pad_token_id` of 0 for "not set" and fills with `eos_token_id`
        (`GenerationMixin._beam_search`); greedy search does not.
        """
        eos = self.eos_token_ids
        pad = self.pad_token_id if self.pad_token_id is not None else (eos[0] if eos else None)
        if self.num_beams > 1:
            return (pad or eos[0]) if eos else -1
        return -1 if pad is None else pad

    def length_range(self, prompt_length: int, max_positions: int | None) -> tuple[int, int]:
        """Return the smallest and the largest length of a sequence, the prompt included.

        Args:
            prompt_length: Number of tokens of the prompt, the start token included.
            max_positions: Number of positions of the decoder. A sequence's last token needs none.

        Raises:
            GenerationError: The lengths contradict the prompt or the decoder.
        """
        longest = self.max_length if self.max_length is not None else prompt_length + DEFAULT_NEW_TOKENS
        if self.max_new_tokens is not None:
            longest = prompt_length + self.max_new_tokens
        if longest <= prompt_length:
            raise GenerationError(
                f"the prompt has {prompt_length} tokens, max_length is {longest}: nothing can be generated; "
                "raise max_length or set max_new_tokens"
            )
        if max_positions is not None and longest > max_positions + 1:
            by_length = self.max_new_tokens is None and self.max_length is not None
            name, taken = ("max_length", 0) if by_length else ("max_new_tokens", prompt_length)
            raise GenerationError(
                f"{longest - prompt_length} new tokens after a prompt of {prompt_length} do not fit the decoder's "
                f"{max_positions} positions; set {name} to {max_positions + 1 - taken} or less"
            )
        shortest = self.min_length or 0
        if self.min_new_tokens is not None:
            shortest = prompt_length + self.min_new_tokens
        return shortest, longest


_MAY_BE_NONE = frozenset(
    name for name, kind in get_type_hints(GenerationConfig).items() if type(None) in get_args(kind)
)
"""Settings that None turns off; for others it means the value of the bundle."""


class GenerationSettings(TypedDict, total=False):
    """Settings of a call as typed keywords, with lists where `GenerationConfig` has tuples."""

    max_new_tokens: int | None
    max_length: int | None
    min_new_tokens: int | None
    min_length: int | None
    max_time: float | None
    stop_strings: str | list[str] | None
    num_beams: int
    num_return_sequences: int
    length_penalty: float
    early_stopping: bool | Literal["never"]
    do_sample: bool
    temperature: float
    top_k: int | None
    top_p: float
    min_p: float | None
    typical_p: float
    epsilon_cutoff: float
    eta_cutoff: float
    top_h: float | None
    repetition_penalty: float
    no_repeat_ngram_size: int
    exponential_decay_length_penalty: tuple[int, float] | None
    suppress_tokens: list[int] | None
    begin_suppress_tokens: list[int] | None
    bad_words_ids: list[list[int]] | None
    sequence_bias: Mapping[tuple[int, ...], float] | list[tuple[list[int], float]] | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | list[int] | None
    decoder_start_token_id: int | list[int] | None
    eos_token_id: int | list[int] | None
    pad_token_id: int | None
    renormalize_logits: bool
    remove_invalid_values: bool


def _as_tuple(tokens: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if tokens is None:
        return ()
    return (tokens,) if isinstance(tokens, int) else tokens


def _with_suggestions(found: Iterable[str], settings: Sequence[str], keywords: Iterable[str]) -> list[str]:
    """Add to each unknown setting the known name that it resembles, or where all of them are listed."""
    known, lines = [*settings, *keywords], []
    for problem in found:
        name, unknown, _ = problem.partition(" is not a known field")
        if not unknown:
            lines.append(problem)
            continue
        similar = get_close_matches(name, known, 1)
        remedy = f"did you mean {similar[0]}?" if similar else "help(OnnxSpeechSeq2Seq.generate) lists all of them"
        lines.append(f"{name} is not a known setting; {remedy}")
    return lines
