"""Processors for the settings of a search, in the order of transformers' `_get_logits_processor`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ...bundle.vocabulary import Vocabulary
from ..config import GenerationConfig
from ..search.base import Candidates, Tokens
from ..search.ranking import continuations_kept
from .constraints import Ban, Force, most_banned
from .maths import LogitsProcessor
from .processors import (
    bad_words,
    exponential_decay,
    no_repeat_ngram,
    only,
    remove_invalid,
    renormalize,
    repetition_penalty,
    sequence_bias,
)
from .warpers import epsilon_cutoff, eta_cutoff, min_p, temperature, top_h, top_k, top_p, typical_p

Link = Ban | Force | LogitsProcessor


@dataclass(frozen=True)
class Lengths:
    """Lengths in a search: the prompt's, and the shortest and longest length of a sequence, prompt included."""

    prompt: int
    shortest: int
    longest: int


@dataclass(frozen=True)
class ProcessorChain:
    """Processors that turn a model's candidates into those that a search chooses among.

    Attributes:
        processors: Processors, in order.
        full_vocab: If true, they need the whole vocabulary at every step. The best candidates of each beam are enough
            where they only ban tokens or force one at a single step, and where sampling takes only the `top_k` best.
        needed: Number of candidates of a beam that must be left; a step in which fewer are needs the whole vocabulary.
            0 where bans cannot take so many.
    """

    processors: tuple[Link, ...]
    full_vocab: bool
    needed: int = 0

    def needs_full_vocab(self, length: int) -> bool:
        """Return whether the step after sequences of `length` needs the whole vocabulary: a forced token may be any."""
        return self.full_vocab or length in self._forced_at

    @cached_property
    def _forced_at(self) -> frozenset[int]:
        return frozenset(processor.at for processor in self.processors if isinstance(processor, Force))

    def __call__(self, candidates: Candidates, length: int, live: Callable[[], Tokens]) -> Candidates:
        """Process the candidates of the sequences int64 [batch, beams or 1, length] that `live` returns."""
        for processor in self.processors:
            if isinstance(processor, Ban | Force):
                candidates = processor(candidates, length)
            else:
                candidates = candidates.with_scores(processor(live(), candidates.scores))
        return candidates


def processor_chain(
    config: GenerationConfig, lengths: Lengths, top_k: int, vocabulary: Vocabulary, own: Sequence[LogitsProcessor] = ()
) -> ProcessorChain:
    """Return the processors of one search.

    Args:
        config: Settings.
        lengths: Lengths in the search.
        top_k: Number of candidates that the decoder returns where it does not return its whole vocabulary.
        vocabulary: Vocabulary of the decoder.
        own: The caller's processors; they come after all but those of sampling.
    """
    processors = list(_processors(config, lengths))
    constraints = [processor for processor in processors if isinstance(processor, Ban | Force)]
    sampling = list(_warpers(config)) if config.do_sample else []
    last = [renormalize()] if config.renormalize_logits else []
    chosen = continuations_kept(config)
    if config.do_sample:
        chosen = max(chosen, config.top_k or vocabulary.size)
    full_vocab = top_k < min(vocabulary.size, chosen) or len(constraints) < len(processors) or bool(own) or bool(last)
    may_fall_short = top_k < min(vocabulary.size, chosen + most_banned(constraints))
    needed = chosen if may_fall_short and not full_vocab else 0
    # These may raise what a bundle leaves out above -inf; all others leave -inf as it is.
    possible = [only(vocabulary.is_kept)] if vocabulary.kept and (own or config.remove_invalid_values) else []
    return ProcessorChain((*processors, *own, *possible, *sampling, *last), full_vocab, needed)


def _processors(config: GenerationConfig, lengths: Lengths) -> Iterator[Link]:
    if config.sequence_bias:
        yield sequence_bias(dict(config.sequence_bias))
    if config.repetition_penalty != 1.0:
        yield repetition_penalty(config.repetition_penalty)
    if config.no_repeat_ngram_size:
        yield no_repeat_ngram(config.no_repeat_ngram_size)
    yield from _bad_words(config)
    if config.eos_token_ids and lengths.shortest > 0:
        yield Ban(config.eos_token_ids, lambda length: length < lengths.shortest)
    if config.forced_bos_token_id is not None:
        yield Force((config.forced_bos_token_id,), at=1)
    if config.forced_eos_token_ids:
        yield Force(config.forced_eos_token_ids, at=lengths.longest - 1)
    if config.remove_invalid_values:
        yield remove_invalid()
    if config.exponential_decay_length_penalty is not None:
        start, factor = config.exponential_decay_length_penalty
        yield exponential_decay(start, factor, config.eos_token_ids, lengths.prompt)
    if config.suppress_tokens:
        yield Ban(config.suppress_tokens, lambda _: True)
    if config.begin_suppress_tokens:
        begin = lengths.prompt + (lengths.prompt == 1 and config.forced_bos_token_id is not None)
        yield Ban(config.begin_suppress_tokens, lambda length: length == begin)


def _bad_words(config: GenerationConfig) -> Iterator[Link]:
    words = config.bad_words_ids or ()
    if any(len(word) > 1 for word in words):
        yield bad_words(words, config.eos_token_ids)
    elif banned := tuple(word[0] for word in words if word[0] not in config.eos_token_ids):
        yield Ban(banned, lambda _: True)


def _warpers(config: GenerationConfig) -> Iterator[LogitsProcessor]:
    keep = max(2, len(config.eos_token_ids) + 1) if config.num_beams > 1 else 1
    if config.temperature != 1.0:
        yield temperature(config.temperature)
    if config.top_h is not None:
        yield top_h(config.top_h)
    if config.top_k:
        yield top_k(config.top_k, keep)
    if config.top_p < 1.0:
        yield top_p(config.top_p, keep)
    if config.min_p is not None:
        yield min_p(config.min_p, keep)
    if config.typical_p < 1.0:
        yield typical_p(config.typical_p, keep)
    if 0.0 < config.epsilon_cutoff < 1.0:
        yield epsilon_cutoff(config.epsilon_cutoff, keep)
    if 0.0 < config.eta_cutoff < 1.0:
        yield eta_cutoff(config.eta_cutoff, keep)
