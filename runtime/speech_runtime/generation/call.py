"""One call of `generate`: prompts of any lengths, stop strings and streaming around the decoding loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..bundle.model_facts import DecoderFacts
from ..dataclass_json import shown
from ..errors import GenerationError
from .config import GenerationConfig, GenerationSettings
from .decoding.loop import Decoder, Hooks, decode
from .decoding.row_memory import check_row_memory
from .output import GenerateOutput
from .prompts import Prompt
from .scores.maths import Processor
from .scores.own_functions import checked_criterion, checked_processor
from .search.state import Tokens
from .search.stopping import Deadline, Stopping, StoppingCriterion
from .text import TextStream, stop_strings


@dataclass(frozen=True)
class Extras:
    """What a call of `generate` has besides its settings.

    Attributes:
        logits_processor: functions of sequences int64 [batch, beams, length] and scores float32 [batch, beams,
            vocabulary] to scores; they come after those of the settings and before those of sampling.
        stopping_criteria: functions of sequences int64 [rows, length] to bool [rows]: where each is to end.
        generator: of random numbers, for sampling.
        stream: takes the text of the only utterance in whole words, as soon as it is decided.
        cancel: set it, from any thread, to end the search after its present step.
        output_scores: return what was chosen by at every step.
        output_logits: return the logits of every step.
    """

    logits_processor: Sequence[Processor] = ()
    stopping_criteria: Sequence[StoppingCriterion] = ()
    generator: np.random.Generator | None = None
    stream: Callable[[str], None] | None = None
    cancel: Event | None = None
    output_scores: bool = False
    output_logits: bool = False

    def __post_init__(self) -> None:
        """Refuse what is none of these."""
        problems = [
            f"{name} is {shown(value)}, it must be {words}"
            for name, (fits, words) in _TAKES.items()
            if (value := getattr(self, name)) is not None and not fits(value)
        ]
        if problems:
            raise GenerationError("; ".join(problems))

    @classmethod
    def split(cls, keywords: Mapping[str, Any]) -> tuple["Extras", dict[str, Any]]:
        """The extras among the keywords of a call, and its settings.

        Raises:
            GenerationError: one of the extras is of another kind.
        """
        names = {field.name for field in fields(cls)}
        extras = {name: value for name, value in keywords.items() if name in names and value is not None}
        return cls(**extras), {name: value for name, value in keywords.items() if name not in names}


def _are_functions(value: object) -> bool:
    return isinstance(value, Sequence) and all(map(callable, value))


_FLAG: tuple[Callable[[Any], bool], str] = (lambda value: isinstance(value, bool | np.bool_), "True or False")

_TAKES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "logits_processor": (_are_functions, "a list of functions of sequences and scores"),
    "stopping_criteria": (_are_functions, "a list of functions of sequences"),
    "generator": (
        lambda value: isinstance(value, np.random.Generator),
        "a numpy.random.Generator, as numpy.random.default_rng(seed) makes it",
    ),
    "stream": (callable, "a function of text, as print is"),
    "cancel": (lambda value: callable(getattr(value, "is_set", None)), "a threading.Event"),
    "output_scores": _FLAG,
    "output_logits": _FLAG,
}
"""Of each extra what it must fulfil, and the words for it."""


class SearchKeywords(GenerationSettings, total=False):
    """Keywords of a call of `generate`; see `GenerationConfig` and `Extras`."""

    logits_processor: Sequence[Processor]
    stopping_criteria: Sequence[StoppingCriterion]
    generator: np.random.Generator | None
    stream: Callable[[str], None] | None
    cancel: Event | None
    output_scores: bool
    output_logits: bool


def generate(
    decoder: Callable[[Tokens, int], Decoder],
    facts: DecoderFacts,
    tokenizer: Tokenizer | None,
    config: GenerationConfig,
    prompts: list[Prompt],
    extras: Extras,
) -> GenerateOutput:
    """Search for the continuations of every prompt.

    Args:
        decoder: makes the decoder of some utterances, int64 [rows], whose sequences have so many tokens at most.
        facts: of the decoder.
        tokenizer: for stop strings and streaming.
        config: the settings.
        prompts: of all utterances, sorted by their lengths.
        extras: of the call.

    Raises:
        GenerationError: settings that do not go together, or with the decoder.
    """
    _check(config, prompts, extras, tokenizer)
    hooks = Hooks(
        processors=tuple(checked_processor(own, i) for i, own in enumerate(extras.logits_processor)),
        deadline=Deadline(config.max_time, extras.cancel),
        generator=extras.generator,
        keep_scores=extras.output_scores,
        keep_logits=extras.output_logits,
    )
    outputs = []
    for prompt in prompts:
        length = prompt.tokens.shape[1]
        longest = config.length_range(length, facts.max_positions)[1]
        check_row_memory(len(prompt.rows), longest, facts, config)
        criteria = tuple(checked_criterion(own, i) for i, own in enumerate(extras.stopping_criteria))
        if config.stops and tokenizer is not None:
            criteria = (*criteria, stop_strings(tokenizer, config.stops, length))
        stream = TextStream(tokenizer, length, extras.stream) if extras.stream and tokenizer is not None else None
        found = decode(
            decoder(prompt.rows, longest),
            facts,
            prompt.tokens,
            config,
            replace(hooks, stopping=Stopping(criteria), on_step=stream),
        )
        if stream is not None:
            stream.end(found.sequences[0, : found.lengths[0]].tolist())
        outputs.append(found)
    return outputs[0] if len(outputs) == 1 else _merged(outputs, prompts, config)


def _check(config: GenerationConfig, prompts: list[Prompt], extras: Extras, tokenizer: Tokenizer | None) -> None:
    if tokenizer is None and (config.stops or extras.stream is not None):
        raise GenerationError("stop_strings and stream need the bundle's tokenizer.json, and it has none")
    utterances = sum(len(prompt.rows) for prompt in prompts)
    if extras.stream is not None and utterances > 1:
        raise GenerationError(f"stream takes the text of one utterance, this batch has {utterances}")
    if len(prompts) > 1 and (extras.output_scores or extras.output_logits):
        raise GenerationError("output_scores and output_logits need prompts of one length; generate them one by one")


def _merged(outputs: list[GenerateOutput], prompts: list[Prompt], config: GenerationConfig) -> GenerateOutput:
    """The outputs of prompts of different lengths, in the order of the utterances."""
    order = np.argsort(np.concatenate([prompt.rows for prompt in prompts]), kind="stable")
    returned = config.num_return_sequences

    def ordered(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        whole: NDArray[Any] = np.concatenate(arrays)
        return whole.reshape(-1, returned, *whole.shape[1:])[order].reshape(whole.shape)

    def joined(arrays: Sequence[NDArray[Any]], filler: float) -> NDArray[Any]:
        width = max(array.shape[1] for array in arrays)
        return ordered(
            [np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=filler) for array in arrays]
        )

    return GenerateOutput(
        sequences=joined([output.sequences for output in outputs], config.fill_token_id),
        sequences_scores=ordered([output.sequences_scores for output in outputs]),
        token_logprobs=joined([output.token_logprobs for output in outputs], 0.0),
        beam_indices=joined([output.beam_indices for output in outputs], -1),
        steps=sum(output.steps for output in outputs),
        lengths=ordered([output.lengths for output in outputs]),
        finished=ordered([output.finished for output in outputs]),
    )
