"""Generation settings: one frozen, validated dataclass with the names and meaning of transformers' GenerationConfig."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypedDict

from ..bundle.loading import read_configuration
from ..dataclass_json import FieldError, updated
from ..errors import GenerationError
from .setting_ranges import range_problems, vocabulary_problems
from .transformers_settings import followed

DEFAULT_NEW_TOKENS = 20
"""How many tokens transformers generates where no length is set."""


class GenerationSettings(TypedDict, total=False):
    """Keywords of `generate()` and `transcribe()`; see `GenerationConfig`."""

    num_beams: int
    num_return_sequences: int
    length_penalty: float
    early_stopping: bool | Literal["never"]
    max_new_tokens: int | None
    max_length: int | None
    min_new_tokens: int | None
    min_length: int | None
    do_sample: bool
    temperature: float
    top_k: int | None
    top_p: float
    min_p: float | None
    typical_p: float
    epsilon_cutoff: float
    eta_cutoff: float
    top_h: float | None
    max_time: float | None
    stop_strings: str | list[str] | None
    repetition_penalty: float
    no_repeat_ngram_size: int
    bad_words_ids: list[list[int]] | None
    sequence_bias: Mapping[tuple[int, ...], float] | list[tuple[list[int], float]] | None
    exponential_decay_length_penalty: tuple[int, float] | None
    renormalize_logits: bool
    remove_invalid_values: bool
    decoder_start_token_id: int | list[int]
    eos_token_id: int | list[int] | None
    pad_token_id: int | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | list[int] | None
    suppress_tokens: list[int] | None
    begin_suppress_tokens: list[int] | None


@dataclass(frozen=True)
class GenerationConfig:
    """How to search: greedy with one beam, beam search with more; either at random with `do_sample`.

    Attributes:
        decoder_start_token_id: the first token of every sequence, or of each utterance's; `bos_token_id` where None.
        eos_token_id: the token, or tokens, that end a sequence.
        pad_token_id: what follows the end in a batch; the first `eos_token_id` where it is None.
        num_beams: hypotheses kept alive for an utterance.
        num_return_sequences: hypotheses returned for an utterance, best first, at most `num_beams`; or so many samples.
        length_penalty: a hypothesis scores its log-probability / (its new tokens ** length_penalty).
        early_stopping: True stops at `num_beams` finished hypotheses; False when the best live one, at its present
            length, could not beat the worst finished one; "never" when it could not at any length.
        max_new_tokens: new tokens at most; overrides `max_length`, which counts the prompt too.
        min_new_tokens: new tokens at least; overrides `min_length`, which counts the prompt too.
        forced_bos_token_id: the first new token after a prompt of one token.
        forced_eos_token_id: the last token of a sequence that reaches its maximal length.
        suppress_tokens: never generated.
        begin_suppress_tokens: not generated as the first new token.
        bad_words_ids: sequences of tokens that are never generated.
        sequence_bias: what is added to the score of the last token of a sequence where its others came before.
        repetition_penalty: divides the score of tokens that came before, or multiplies it where it is negative.
        no_repeat_ngram_size: so many tokens in a row come once only; 0 for any number.
        exponential_decay_length_penalty: after so many new tokens, the end gets likelier by this factor each token.
        renormalize_logits: make probabilities of what the other settings left.
        remove_invalid_values: take NaN for 0 and infinities for the largest numbers.
        do_sample: draw tokens by their probabilities.
        temperature: divides the scores before sampling.
        top_k: sample from so many of the likeliest tokens; from all where 0 or None.
        top_p: sample from the likeliest tokens that have this probability together.
        min_p: sample from tokens that have this share of the likeliest one's probability.
        typical_p: sample from the tokens nearest to the expected information, with this probability together.
        epsilon_cutoff: sample from tokens of this probability at least.
        eta_cutoff: the same, lowered where the distribution is flat.
        top_h: sample from the likeliest tokens that have this share of the entropy together.
        max_time: seconds after which a search ends with what it has.
        stop_strings: a sequence ends where its text ends in one of these.
    """

    decoder_start_token_id: int | tuple[int, ...] | None = None
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    num_beams: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int | None = None
    min_length: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | tuple[int, ...] | None = None
    suppress_tokens: tuple[int, ...] | None = None
    begin_suppress_tokens: tuple[int, ...] | None = None
    bad_words_ids: tuple[tuple[int, ...], ...] | None = None
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    exponential_decay_length_penalty: tuple[int, float] | None = None
    renormalize_logits: bool = False
    remove_invalid_values: bool = False
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = 50
    top_p: float = 1.0
    min_p: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    top_h: float | None = None
    max_time: float | None = None
    stop_strings: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse values that are out of range or contradict each other."""
        problems = range_problems(vars(self))
        independent = self.do_sample and self.num_beams == 1
        if self.num_return_sequences > self.num_beams and not independent:
            problems.append(
                f"num_return_sequences is {self.num_return_sequences} but num_beams only {self.num_beams}; "
                "raise num_beams or return fewer"
            )
        if self.exponential_decay_length_penalty is not None and not self.eos_token_ids:
            problems.append("exponential_decay_length_penalty needs an eos_token_id")
        if any(not tokens for tokens in self.bad_words_ids or ()):
            problems.append("bad_words_ids has an empty sequence")
        if any(not tokens for tokens, _ in self.sequence_bias or ()):
            problems.append("sequence_bias has an empty sequence")
        if problems:
            raise GenerationError("; ".join(problems))

    @classmethod
    def from_file(cls, path: Path, vocab_size: int | None = None) -> "GenerationConfig":
        """Read a `generation_config.json`, and check its token ids where the decoder's `vocab_size` is given.

        Args:
            path: of the file.
            vocab_size: of the decoder; where it is given, token ids must be below it.

        Raises:
            BundleError: it cannot be read.
            GenerationError: a setting is out of range, or would change the output and this release does not follow it.
        """
        content = read_configuration(path)
        given = {name: value for name, value in content.items() if value is not None}
        try:
            config = cls()._with(followed(given))
            if vocab_size is not None:
                config.check_vocabulary(vocab_size)
        except GenerationError as error:
            raise GenerationError(f"{path.name}: {error}") from None
        return config

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise `GenerationError` unless every token that is fed, forced or awaited is one of the `vocab_size`."""
        if problems := vocabulary_problems(vars(self), vocab_size):
            raise GenerationError("; ".join(problems))

    def updated(self, settings: Mapping[str, Any]) -> "GenerationConfig":
        """A copy with the keywords of a call.

        Raises:
            GenerationError: unknown, wrongly typed or contradictory settings.
        """
        return self._with(followed(settings)) if settings else self

    def _with(self, given: Mapping[str, Any]) -> "GenerationConfig":
        try:
            return updated(self, given)
        except FieldError as error:
            unknown = any(problem.endswith("is not a known field") for problem in error.problems)
            remedy = f"; known settings are {', '.join(_NAMES)}" if unknown else ""
            raise GenerationError(f"{error}{remedy}") from None

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """All end tokens; none where sequences only end at their maximal length."""
        return _as_tuple(self.eos_token_id)

    @property
    def forced_eos_token_ids(self) -> tuple[int, ...]:
        """All tokens forced at the maximal length."""
        return _as_tuple(self.forced_eos_token_id)

    def start_token_ids(self, batch: int) -> tuple[int, ...]:
        """The first token of the sequences of each utterance.

        Raises:
            GenerationError: neither `decoder_start_token_id` nor `bos_token_id` is set, or not one for each utterance.
        """
        start = self.bos_token_id if self.decoder_start_token_id is None else self.decoder_start_token_id
        if start is None:
            raise GenerationError("decoder_start_token_id is not set, and neither is bos_token_id; give one of them")
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
        """What rows of a batch are padded with after their end.

        As in transformers, beam search takes a `pad_token_id` of 0 for none and pads with `eos_token_id`
        (`GenerationMixin._beam_search`), greedy search does not.
        """
        eos = self.eos_token_ids
        pad = self.pad_token_id if self.pad_token_id is not None else (eos[0] if eos else None)
        if self.num_beams > 1:
            return (pad or eos[0]) if eos else -1
        return -1 if pad is None else pad

    def length_range(self, prompt_length: int, max_positions: int | None) -> tuple[int, int]:
        """Minimal and maximal length of a sequence, the prompt included.

        Args:
            prompt_length: tokens given, the start token included.
            max_positions: of the decoder, which never sees a sequence's last token.

        Raises:
            GenerationError: the lengths contradict the prompt or the decoder.
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
            raise GenerationError(
                f"{longest - prompt_length} new tokens after a prompt of {prompt_length} do not fit the decoder's "
                f"{max_positions} positions; set max_new_tokens to {max_positions + 1 - prompt_length} or less"
            )
        shortest = self.min_length or 0
        if self.min_new_tokens is not None:
            shortest = prompt_length + self.min_new_tokens
        return shortest, longest


_NAMES = tuple(field.name for field in fields(GenerationConfig))


def _as_tuple(tokens: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if tokens is None:
        return ()
    return (tokens,) if isinstance(tokens, int) else tokens
