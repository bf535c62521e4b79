"""Generation settings: one frozen, validated dataclass with the names and meaning of transformers' GenerationConfig."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypedDict

from ..errors import GenerationError
from ..strict import FieldError, from_json

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
    decoder_start_token_id: int
    eos_token_id: int | list[int] | None
    pad_token_id: int | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | list[int] | None
    suppress_tokens: list[int] | None
    begin_suppress_tokens: list[int] | None


@dataclass(frozen=True)
class GenerationConfig:
    """How to search. Greedy with one beam, beam search with more.

    Attributes:
        decoder_start_token_id: the first token of every sequence; `bos_token_id` where it is None.
        eos_token_id: the token, or tokens, that end a sequence.
        pad_token_id: what follows the end in a batch; the first `eos_token_id` where it is None.
        num_beams: hypotheses kept alive for an utterance.
        num_return_sequences: hypotheses returned for an utterance, best first; at most `num_beams`.
        length_penalty: a hypothesis scores its log-probability / (its new tokens ** length_penalty).
        early_stopping: True stops at `num_beams` finished hypotheses; False when the best live one, at its present
            length, could not beat the worst finished one; "never" when it could not at any length.
        max_new_tokens: new tokens at most; overrides `max_length`, which counts the prompt too.
        min_new_tokens: new tokens at least; overrides `min_length`, which counts the prompt too.
        forced_bos_token_id: the first new token after a prompt of one token.
        forced_eos_token_id: the last token of a sequence that reaches its maximal length.
        suppress_tokens: never generated.
        begin_suppress_tokens: not generated as the first new token.
    """

    decoder_start_token_id: int | None = None
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

    def __post_init__(self) -> None:
        """Refuse values that are out of range or contradict each other."""
        problems = [
            f"{name} is {value}, it must be at least {least}"
            for name, least in _LEAST.items()
            if (value := getattr(self, name)) is not None and value < least
        ]
        if self.num_return_sequences > self.num_beams:
            problems.append(
                f"num_return_sequences is {self.num_return_sequences} but num_beams only {self.num_beams}; "
                "raise num_beams or return fewer"
            )
        if problems:
            raise GenerationError("; ".join(problems))

    @classmethod
    def from_file(cls, path: Path) -> "GenerationConfig":
        """Read a `generation_config.json`.

        Raises:
            GenerationError: it holds a setting that would change the output and that this release does not follow.
        """
        content = json.loads(path.read_text(encoding="utf-8"))
        given = {name: value for name, value in content.items() if value is not None}
        return cls()._with(_without_neutral(given), path.name)

    def updated(self, settings: Mapping[str, Any]) -> "GenerationConfig":
        """A copy with the keywords of a call.

        Raises:
            GenerationError: unknown, wrongly typed or contradictory settings.
        """
        return self._with(_without_neutral(settings), "the settings") if settings else self

    def _with(self, given: Mapping[str, Any], origin: str) -> "GenerationConfig":
        try:
            return from_json(GenerationConfig, {**asdict(self), **given})
        except FieldError as error:
            raise GenerationError(f"{origin}: {error}; known settings are {', '.join(_NAMES)}") from None

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """All end tokens; none where sequences only end at their maximal length."""
        return _as_tuple(self.eos_token_id)

    @property
    def forced_eos_token_ids(self) -> tuple[int, ...]:
        """All tokens forced at the maximal length."""
        return _as_tuple(self.forced_eos_token_id)

    @property
    def start_token_id(self) -> int:
        """The first token of every sequence.

        Raises:
            GenerationError: neither `decoder_start_token_id` nor `bos_token_id` is set.
        """
        start = self.bos_token_id if self.decoder_start_token_id is None else self.decoder_start_token_id
        if start is None:
            raise GenerationError("decoder_start_token_id is not set, and neither is bos_token_id; give one of them")
        return start

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
_LEAST = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "max_new_tokens": 1,
    "max_length": 1,
    "min_new_tokens": 0,
    "min_length": 0,
}

_NEUTRAL: dict[str, tuple[object, ...]] = {
    "do_sample": (False,),
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "remove_invalid_values": (False,),
    "renormalize_logits": (False,),
    "num_beam_groups": (1,),
    "diversity_penalty": (0.0,),
    "guidance_scale": (1.0,),
    "low_memory": (False,),
}
"""Settings of transformers that this release does not follow, with the values at which they change nothing."""

_WITHOUT_EFFECT = frozenset(
    {
        *("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),  # sampling only
        *("use_cache", "cache_implementation", "cache_config", "compile_config", "disable_compile"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
        *("transformers_version", "_from_model_config"),
        *("assistant_confidence_threshold", "assistant_lookbehind", "is_assistant", "num_assistant_tokens"),
        *("num_assistant_tokens_schedule", "target_lookbehind"),
    }
)
"""Settings that cannot change the token ids of greedy or beam search."""


def _without_neutral(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in given.items()
        if name not in _WITHOUT_EFFECT and not (name in _NEUTRAL and value in _NEUTRAL[name])
    }


def _as_tuple(tokens: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if tokens is None:
        return ()
    return (tokens,) if isinstance(tokens, int) else tokens
