"""Random cases: utterances of any lengths, and any settings that transformers has, most of them off."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from composites import VOCABULARY
from parity.agreement import Batch, Settings

_TOKENS = st.integers(4, VOCABULARY - 1)
_BANNED = 25
"""At most in each list: where a search runs out of tokens, what fills up is a tie, broken at will."""


@dataclass(frozen=True)
class Noise:
    """Utterances of noise.

    Attributes:
        samples: of each.
        padding: samples behind the end of the longest.
        noisy: whether there is noise where the mask says that there is nothing.
        masked: whether there is a mask, though nothing is padded.
        seed: of the noise.
    """

    samples: tuple[int, ...]
    padding: int
    noisy: bool
    masked: bool
    seed: int

    def batch(self) -> Batch:
        """The noise itself."""
        width = max(self.samples) + self.padding
        mask = (np.arange(width) < np.array(self.samples)[:, None]).astype(np.int64)
        noise = np.random.default_rng(self.seed).standard_normal(mask.shape)
        inputs = (noise if self.noisy else noise * mask).astype(np.float32)
        return Batch(inputs, mask if self.masked or not mask.all() else None)


@dataclass(frozen=True)
class Case:
    """One call of `generate`."""

    noise: Noise
    settings: Settings


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any case; `settings` fit both `generate` of transformers and ours."""
    noise, beams = draw(noises()), draw(st.integers(1, 5))
    settings: Settings = {"num_beams": beams, **draw(lengths())}
    if beams > 1:
        settings["num_return_sequences"] = draw(st.integers(1, beams))
        settings["length_penalty"] = draw(st.sampled_from([-0.5, 0.0, 0.6, 1.0, 2.0]))
        settings["early_stopping"] = draw(st.sampled_from([True, False, "never"]))
    settings |= draw(starts(len(noise.samples))) | draw(constraints(beams))
    return Case(noise, settings | draw(processors(beams)))


@st.composite
def noises(draw: st.DrawFn) -> Noise:
    """One to four utterances, as long as each other or not."""
    samples = st.integers(200, 3000)
    alike = st.tuples(samples, st.integers(1, 4)).map(lambda pair: (pair[0],) * pair[1])
    different = st.lists(samples, min_size=2, max_size=4).map(tuple)
    padding = st.sampled_from([0, 0, 7, 1500])
    return Noise(
        draw(alike | different),
        draw(padding),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.integers(0, 2**32 - 1)),
    )


@st.composite
def lengths(draw: st.DrawFn) -> Settings:
    """Lengths at most and at least, some that contradict each other."""
    most = draw(st.sampled_from(["max_new_tokens", "max_length"]))
    least = draw(_some(dict.fromkeys(("min_new_tokens", "min_length"), st.integers(0, 20)), at_most=1))
    return {most: draw(st.integers(1, 16) if most == "max_new_tokens" else st.integers(6, 18)), **least}


@st.composite
def starts(draw: st.DrawFn, utterances: int) -> Settings:
    """Start tokens, one or one for each utterance, and prompts that begin with them or not."""
    width, token = draw(st.integers(1, 4)), st.integers(0, VOCABULARY - 1)
    settings = {
        "decoder_start_token_id": token | st.lists(token, min_size=utterances, max_size=utterances),
        "decoder_input_ids": st.lists(
            st.lists(token, min_size=width, max_size=width), min_size=utterances, max_size=utterances
        ),
    }
    return draw(_some(settings, at_most=2))


@st.composite
def constraints(draw: st.DrawFn, beams: int) -> Settings:
    """What ends a sequence, and what only bans or forces tokens."""
    ends = draw(st.lists(_TOKENS, min_size=1, max_size=5, unique=True))
    other = _TOKENS.filter(lambda token: token not in ends)
    forced = draw(other)
    allowed = other.filter(lambda token: token != forced)  # transformers refuses to force and to suppress a token
    banned = st.lists(allowed, min_size=1, max_size=_BANNED)
    settings = {
        "pad_token_id": st.integers(0, VOCABULARY - 1),
        "forced_bos_token_id": st.just(forced),
        # Beams that are forced to end in one of several tokens are equally good with each of them.
        "forced_eos_token_id": st.sampled_from(ends) | st.just(ends if beams == 1 else ends[:1]),
        "suppress_tokens": banned,
        "begin_suppress_tokens": banned,
    }
    found = draw(_some(settings, at_most=4))
    if "forced_eos_token_id" in found or draw(st.integers(0, 3)):
        found["eos_token_id"] = draw(st.just(ends) | st.just(ends[0]))
    return found


@st.composite
def processors(draw: st.DrawFn, beams: int) -> Settings:
    """What needs the scores of the whole vocabulary; nothing of it in every third case."""
    if draw(st.integers(0, 2)) == 0:
        return {}
    words = st.lists(st.lists(_TOKENS, min_size=1, max_size=3), min_size=1, max_size=6)
    bias = st.tuples(words, st.lists(st.integers(-20, 20), min_size=6, max_size=6))
    settings = {
        "repetition_penalty": st.sampled_from([0.6, 1.1, 1.5, 2.3]),
        "no_repeat_ngram_size": st.integers(1, 3),
        "bad_words_ids": words,
        "sequence_bias": bias.map(lambda pair: [[words, quarters / 4] for words, quarters in zip(*pair, strict=False)]),
        "exponential_decay_length_penalty": st.tuples(st.integers(0, 8), st.sampled_from([1.01, 1.2, 1.5])),
        "renormalize_logits": st.just(True),
        "remove_invalid_values": st.just(True),
    }
    if beams > 1:  # together they make infinite scores of bans: beams that are all equally good
        del settings[draw(st.sampled_from(["exponential_decay_length_penalty", "remove_invalid_values"]))]
    return draw(_some(settings, at_most=4))


@st.composite
def _some(draw: st.DrawFn, settings: dict[str, st.SearchStrategy[object]], at_most: int) -> Settings:
    count = draw(st.integers(0, at_most))
    chosen = draw(st.lists(st.sampled_from(sorted(settings)), min_size=count, max_size=count, unique=True))
    return {name: draw(settings[name]) for name in chosen}
