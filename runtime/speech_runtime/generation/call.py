"""A call of `generate`: prompts of any lengths, stop strings and streaming around the decoding loop."""

from collections.abc import Callable

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
from .decoding.loop import Decoder, DecodingLoop
from .output import GenerateOutput, joined
from .prompts import Prompt
from .search.base import SearchResult, rows_per_utterance
from .search.stopping import Deadline
from .streaming import Stream, TextStream, TokenStream
from .text import stop_strings
from .token_scores.chain import Lengths

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
    found: list[list[SearchResult]] = [[]] * sum(len(prompt.utterances) for prompt in prompts)
    steps, scores, logits = 0, None, None
    for prompt in prompts:
        length = prompt.tokens.shape[1]
        shortest, longest = config.length_range(length, facts.max_positions)
        check_static_length(facts, longest)
        _check_memory(len(prompt.utterances), longest, facts, config)
        criteria = options.checked_criteria()
        if config.stops and tokenizer is not None:
            criteria = (*criteria, stop_strings(tokenizer, config.stops, length))
        stream = _stream(prompt, options, tokenizer)
        loop = DecodingLoop(
            decoder(prompt.utterances, longest),
            facts,
            prompt.tokens,
            Lengths(length, shortest, longest),
            config,
            options,
            deadline,
            criteria,
            stream,
        )
        for utterance, results in zip(prompt.utterances.tolist(), loop.run(), strict=True):
            found[utterance] = results
        if stream is not None:
            stream.end(found[0][0].tokens)
        steps, scores, logits = steps + loop.steps, loop.scores, loop.logits
    return joined(found, config.fill_token_id, steps, rows_per_utterance(config), scores, logits)


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
        return TextStream(tokenizer, prompt.tokens.shape[1], options.stream)
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
