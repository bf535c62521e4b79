"""A call of `generate`: prompts of any lengths, stop strings and streaming around the decoding loop."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..bundle.model_facts import DecoderFacts
from ..errors import GenerationError
from ..system import free_memory_bytes
from .call_options import CallOptions
from .config import GenerationConfig
from .decoding.caches.static import check_static_length
from .decoding.caches.tree import ROOM
from .decoding.session import Decoder, DecodeSession
from .decoding.utterance import Utterance
from .output import GenerateOutput, joined
from .prompts import Prompt
from .search.base import rows_per_utterance
from .search.stopping import Deadline
from .streaming import Stream, TokenStream, WordStream
from .text import stop_strings
from .token_scores.chain import Lengths, processor_chain

_FLOAT_BYTES = 4

_COUNTED_TOKENS = 64
"""Number of tokens of a growing cache that are counted at most: most sequences end long before their maximal length."""

_UNCHECKED_BYTES = 2**26
"""Memory that is not checked, since any process has it: asking the system takes 47 µs, a search of a small model a few
ms."""


def generate(
    decoder: Callable[[NDArray[np.int64], int], Decoder],
    facts: DecoderFacts,
    tokenizer: Tokenizer | None,
    config: GenerationConfig,
    prompts: list[Prompt],
    options: CallOptions,
) -> GenerateOutput:
    """Search for continuations of every prompt.

    Args:
        decoder: Function that takes utterances int64 [utterances] and the maximal length of their sequences, and
            returns their decoder.
        facts: Facts of the decoder.
        tokenizer: Tokenizer for stop strings and streaming.
        config: Settings.
        prompts: Prompts of all utterances, sorted by their lengths.
        options: Options of the call.

    Raises:
        GenerationError: The settings contradict each other, do not fit the prompts, the decoder or this machine's
            memory, or ban every token.
    """
    _check(config, prompts, options, tokenizer)
    deadline = Deadline(config.max_time, options.cancel)
    session = DecodeSession()
    batch: dict[int, Utterance] = {}
    for prompt in prompts:
        if not session.takes_more:
            _finish(session)
        utterances = utterances_of(prompt, facts, tokenizer, config, options, deadline)
        longest = utterances[0].longest
        _check_memory(len(session.running) + len(utterances), longest, facts, config)
        batch.update(zip(prompt.utterances.tolist(), utterances, strict=True))
        own = decoder(prompt.utterances, longest)
        if not session.takes(own):
            _finish(session)
        _check_ended(session.admit(utterances, own))
    _finish(session)
    found = [batch[position].results() for position in range(len(batch))]
    records = [[getattr(batch[row], name) for row in range(len(batch))] for name in ("scores", "logits")]
    scores, logits = (None if None in rows else tuple(map(np.concatenate, zip(*rows, strict=True))) for rows in records)
    return joined(found, config.fill_token_id, session.steps, rows_per_utterance(config), scores, logits)


def utterances_of(
    prompt: Prompt,
    facts: DecoderFacts,
    tokenizer: Tokenizer | None,
    config: GenerationConfig,
    options: CallOptions,
    deadline: Deadline,
    names: Sequence[str] | None = None,
) -> list[Utterance]:
    """Return the utterances of a prompt, ready to be admitted to a session.

    Args:
        prompt: Prompts of one length.
        facts: Facts of the decoder.
        tokenizer: Tokenizer for stop strings and streaming.
        config: Settings.
        options: Options of the call.
        deadline: Deadline of the call.
        names: Names of the utterances in errors; by default their numbers.

    Raises:
        GenerationError: The settings do not fit the prompts or the decoder.
    """
    length = prompt.tokens.shape[1]
    shortest, longest = config.length_range(length, facts.max_positions)
    check_static_length(facts, longest)
    criteria = options.checked_criteria()
    if config.stops and tokenizer is not None:
        criteria = (*criteria, stop_strings(tokenizer, config.stops, length))
    lengths = Lengths(length, shortest, longest)
    chain = processor_chain(config, lengths, facts.top_k, facts.vocabulary, options.checked_processors())
    stream = _stream(prompt, options, tokenizer)
    if names is None:
        names = [f"utterance {position} of the batch, counted from 0" for position in prompt.utterances]
    utterances = [
        Utterance(name, tokens, longest, config, chain, options, deadline, criteria, stream)
        for name, tokens in zip(names, prompt.tokens, strict=True)
    ]
    if options.output_scores or options.output_logits:
        for utterance in utterances:
            utterance.companions = utterances
    return utterances


def _finish(session: DecodeSession) -> None:
    """Decode until all utterances have ended."""
    while session.running:
        _check_ended(session.step())


def _check_ended(utterances: Sequence[Utterance]) -> None:
    """Raise the error of the first utterance that has failed."""
    for utterance in utterances:
        if utterance.error is not None:
            raise utterance.error


def _check(config: GenerationConfig, prompts: list[Prompt], options: CallOptions, tokenizer: Tokenizer | None) -> None:
    if tokenizer is None and (config.stops or options.stream is not None):
        raise GenerationError("stop_strings and stream need the bundle's tokenizer.json, and it has none")
    utterances = sum(len(prompt.utterances) for prompt in prompts)
    if options.stream is not None and options.streamer is not None:
        raise GenerationError("stream and streamer are both given; give one of them")
    for name, taken in (("stream", "text"), ("streamer", "tokens")):
        if getattr(options, name) is not None and utterances > 1:
            raise GenerationError(f"{name} takes the {taken} of one utterance, this batch has {utterances}")
    if options.streamer is not None and config.num_return_sequences > config.num_beams:
        raise GenerationError(
            f"streamer takes the tokens of one sequence, num_return_sequences is {config.num_return_sequences}"
        )
    if len(prompts) > 1 and (options.output_scores or options.output_logits):
        raise GenerationError("output_scores and output_logits need prompts of one length; generate them one by one")


def _stream(prompt: Prompt, options: CallOptions, tokenizer: Tokenizer | None) -> Stream | None:
    if options.streamer is not None:
        return TokenStream(prompt.tokens, options.streamer)
    if options.stream is not None and tokenizer is not None:
        return WordStream(tokenizer, prompt.tokens.shape[1], options.stream)
    return None


def _check_memory(batch: int, longest: int, facts: DecoderFacts, config: GenerationConfig) -> None:
    """Refuse a search whose cache and logits alone are too large for this process.

    Args:
        batch: Number of utterances.
        longest: Maximal length of a sequence, in tokens.
        facts: Facts of the decoder.
        config: Settings.

    Raises:
        GenerationError: They are; the message has the memory needed and the memory available.
    """
    beams = rows_per_utterance(config)
    rows = batch * beams
    counted = ROOM if facts.cache == "tree" else _COUNTED_TOKENS
    tokens = facts.cache_length or min(longest - 1, counted)
    cache = 2 * facts.layers * facts.heads * facts.head_dim * tokens
    needed = rows * _FLOAT_BYTES * (cache + facts.vocab_size)
    if needed > _UNCHECKED_BYTES and needed > (free := free_memory_bytes()):
        setting = "num_return_sequences" if beams > config.num_beams else "num_beams"
        raise GenerationError(
            f"{setting} {beams:,} × {batch:,} utterances need {needed / 2**30:,.2f} GiB of memory "
            f"or more for their {rows:,} rows, and this process may take {free / 2**30:,.2f} GiB; lower {setting} "
            "or batch_size"
        )
