"""What the settings make of the candidates of a step, in the order of transformers' `_get_logits_processor`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..config import GenerationConfig
from ..search.candidates import Candidates
from ..search.continuations import continuations_kept
from ..search.state import Tokens
from .constraints import Ban, Force, most_banned
from .maths import Processor
from .processors import (
    bad_words,
    exponential_decay,
    no_repeat_ngram,
    remove_invalid,
    renormalize,
    repetition_penalty,
    sequence_bias,
)
from .warpers import epsilon_cutoff, eta_cutoff, min_p, temperature, top_h, top_k, top_p, typical_p

Step = Ban | Force | Processor


@dataclass(frozen=True)
class Lengths:
    """Of a search: of its prompt, and of its sequences at least and at most."""

    prompt: int
    shortest: int
    longest: int


@dataclass(frozen=True)
class Processing:
    """The steps from a model's candidates to those that a search chooses among.

    Attributes:
        steps: in order.
        whole: whether they need the whole vocabulary at every step; the best candidates of each beam are enough where
            they only ban tokens, or force one at a single step, and where sampling takes only `top_k` of them.
    """

    steps: tuple[Step, ...]
    whole: bool

    def needs_whole(self, length: int) -> bool:
        """Whether the step after sequences of `length` needs the whole vocabulary: a forced token may be any of it."""
        if self.whole or not self.steps:
            return self.whole
        return any(isinstance(step, Force) and step.at == length for step in self.steps)

    def __call__(self, candidates: Candidates, length: int, live: Callable[[], Tokens]) -> Candidates:
        """Process candidates of the sequences int64 [batch, beams or 1, length]; those that `live` returns."""
        for step in self.steps:
            if isinstance(step, Ban | Force):
                candidates = step(candidates, length)
            else:
                candidates = candidates.with_scores(step(live(), candidates.scores))
        return candidates


def processing(
    config: GenerationConfig, lengths: Lengths, candidates: int, vocab_size: int, own: Sequence[Processor] = ()
) -> Processing:
    """Prepare the processing of one search.

    Args:
        config: the settings.
        lengths: of the search.
        candidates: that a step returns without its whole vocabulary.
        vocab_size: of the decoder.
        own: the caller's processors; they come after all but those of sampling.
    """
    steps = list(_steps(config, lengths))
    constraints = [step for step in steps if isinstance(step, Ban | Force)]
    sampling = list(_warpers(config)) if config.do_sample else []
    last = [renormalize()] if config.renormalize_logits else []
    chosen = continuations_kept(config)
    if config.do_sample:
        chosen = max(chosen, config.top_k or vocab_size)
    enough = candidates >= min(vocab_size, chosen + most_banned(constraints))
    whole = not enough or len(constraints) < len(steps) or bool(own) or bool(last)
    return Processing((*steps, *own, *sampling, *last), whole)


def _steps(config: GenerationConfig, lengths: Lengths) -> Iterator[Step]:
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


def _bad_words(config: GenerationConfig) -> Iterator[Step]:
    words = config.bad_words_ids or ()
    if any(len(word) > 1 for word in words):
        yield bad_words(words, config.eos_token_ids)
    elif banned := tuple(word[0] for word in words if word[0] not in config.eos_token_ids):
        yield Ban(banned, lambda _: True)


def _warpers(config: GenerationConfig) -> Iterator[Processor]:
    keep = len(config.eos_token_ids) + 1 if config.num_beams > 1 and config.eos_token_ids else 1
    keep = max(keep, 2) if config.num_beams > 1 else keep
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
