"""Random cases: utterances of any lengths, and any settings that transformers has, most of them off.

Cases are drawn evenly, by a `Random` that hypothesis seeds: left to itself it repeats what it drew before, and tries
some settings hardly ever.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from hypothesis import strategies as st

from composites import VOCABULARY
from parity.agreement import Batch, Settings

_BANNED = 25
"""At most in each list: where a search runs out of tokens, what fills up is a tie, broken at will."""


@dataclass(frozen=True)
class Noise:
    """Utterances of noise.

    Attributes:
        samples: Length of each utterance.
        padding: samples behind the end of the longest.
        noisy: If true, there is noise where the mask is 0.
        masked: If true, a mask is given although nothing is padded.
        seed: Seed of the noise.
    """

    samples: tuple[int, ...]
    padding: int = 0
    noisy: bool = False
    masked: bool = True
    seed: int = 0

    def batch(self) -> Batch:
        """The noise itself."""
        width = max(self.samples) + self.padding
        mask = (np.arange(width) < np.array(self.samples)[:, None]).astype(np.int64)
        noise = np.random.default_rng(self.seed).standard_normal(mask.shape)
        inputs = (noise if self.noisy else noise * mask).astype(np.float32)
        return Batch(inputs, mask if self.masked or not mask.all() else None)


@dataclass(frozen=True)
class Case:
    """One call of `generate`; `settings` fit both that of transformers and ours."""

    noise: Noise
    settings: Settings


def cases(likely: Sequence[int]) -> st.SearchStrategy[Case]:
    """Any case, for a model that often says the `likely` tokens: half of those that settings name are among them."""
    return st.randoms(use_true_random=True).map(lambda random: _Draw(random, likely).case())


class _Draw:
    def __init__(self, random: Random, likely: Sequence[int]) -> None:
        self.random, self.likely = random, likely

    def case(self) -> Case:
        noise, beams = self.noise(), self.random.randint(1, 5)
        settings = {"num_beams": beams, **self.lengths(), **self.starts(len(noise.samples))}
        if beams > 1:
            settings["num_return_sequences"] = self.random.randint(1, beams)
            settings["length_penalty"] = self.random.choice([-0.5, 0.0, 0.6, 1.0, 2.0])
            settings["early_stopping"] = self.random.choice([True, False, "never"])
        return Case(noise, settings | self.constraints(beams) | self.processors())

    def noise(self) -> Noise:
        count, one, flags = self.random.randint(1, 4), self.random.randint(200, 3000), self.random.getrandbits(2)
        samples = [one] * count if self.one_in(3) else [self.random.randint(200, 3000) for _ in range(count)]
        padding = self.random.choice([0, 0, 7, 1500])
        return Noise(tuple(samples), padding, bool(flags & 1), bool(flags & 2), self.random.getrandbits(32))

    def lengths(self) -> Settings:
        """Lengths at most and at least, some that contradict each other."""
        lengths = {"max_new_tokens": self.random.randint(1, 16)}
        if self.one_in(2):
            lengths = {"max_length": self.random.randint(6, 18)}
        if self.one_in(3):
            lengths[self.random.choice(["min_new_tokens", "min_length"])] = self.random.randint(0, 20)
        return lengths

    def starts(self, utterances: int) -> Settings:
        """Start tokens, one or one for each utterance, and prompts that begin with them or not."""
        settings: Settings = {}
        if self.one_in(3):
            each = [self.random.randrange(VOCABULARY) for _ in range(utterances)]
            settings["decoder_start_token_id"] = each if self.one_in(2) else each[0]
        if self.one_in(3):
            width = self.random.randint(1, 4)
            settings["decoder_input_ids"] = [
                [self.random.randrange(VOCABULARY) for _ in range(width)] for _ in range(utterances)
            ]
        return settings

    def constraints(self, beams: int) -> Settings:
        """Draw the settings that end a sequence, and those that only ban or force tokens."""
        ends = list(dict.fromkeys(self.tokens(5)))
        forced = self.token(ends)
        settings: dict[str, Callable[[], object]] = {
            "pad_token_id": lambda: self.random.randrange(VOCABULARY),
            "forced_bos_token_id": lambda: forced,
            # Beams that are forced to end in one of several tokens are equally good with each of them.
            "forced_eos_token_id": lambda: ends if beams == 1 and self.one_in(2) else ends[0],
            # What is forced is not suppressed: transformers refuses it.
            "suppress_tokens": lambda: self.tokens(_BANNED, [*ends, forced]),
            "begin_suppress_tokens": lambda: self.tokens(_BANNED, [*ends, forced]),
        }
        return self.some(settings, at_most=3) | {"eos_token_id": ends if self.one_in(2) else ends[0]}

    def processors(self) -> Settings:
        """Draw the settings that need the scores of the whole vocabulary; none in every third case."""
        settings: dict[str, Callable[[], object]] = {
            "repetition_penalty": lambda: self.random.choice([0.6, 1.1, 1.5, 2.3]),
            "no_repeat_ngram_size": lambda: self.random.randint(1, 3),
            "bad_words_ids": lambda: [self.tokens(3) for _ in range(self.random.randint(1, 6))],
            "sequence_bias": lambda: [
                [list(words), self.random.randint(-20, 20) / 4] for words in {tuple(self.tokens(3)) for _ in range(5)}
            ],
            "exponential_decay_length_penalty": lambda: (
                self.random.randint(0, 8),
                self.random.choice([1.01, 1.2, 1.5]),
            ),
            "renormalize_logits": lambda: True,
            "remove_invalid_values": lambda: True,
        }
        # Together they make infinite scores of bans: beams that are all equally good, and NaN once renormalised.
        del settings[self.random.choice(["exponential_decay_length_penalty", "remove_invalid_values"])]
        return {} if self.one_in(3) else self.some(settings, at_most=4)

    def one_in(self, count: int) -> bool:
        return self.random.randrange(count) == 0

    def token(self, but: Sequence[int] = ()) -> int:
        """A token, not one of those that mean something."""
        while (token := self.random.choice([self.random.choice(self.likely), self.random.randrange(VOCABULARY)])) in {
            *range(4),
            *but,
        }:
            pass
        return token

    def tokens(self, at_most: int, but: Sequence[int] = ()) -> list[int]:
        return [self.token(but) for _ in range(self.random.randint(1, at_most))]

    def some(self, settings: dict[str, Callable[[], object]], at_most: int) -> Settings:
        chosen = self.random.sample(sorted(settings), self.random.randint(0, at_most))
        return {name: settings[name]() for name in chosen}
