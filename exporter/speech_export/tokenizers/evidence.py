"""What a tokenizer makes of token ids, as evidence to hold another one against."""

import random
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from ..errors import ExportError

_MIXED = 500
_ALONE = 10_000
_LONGEST = 64


@dataclass(frozen=True)
class Sample:
    """Token ids and the text that transformers makes of them, special tokens left out."""

    ids: list[int]
    text: str


def evidence(tokenizer: Any, texts: dict[int, str], special: set[int]) -> list[Sample]:
    """Every token in some company; many of them alone, at either end, repeated, and beside special tokens.

    The same tokenizer always gives the same evidence.

    Args:
        tokenizer: of transformers.
        texts: token → what it says, for all its tokens.
        special: tokens that are no text.

    Raises:
        ExportError: the tokenizer fails where there is text.
    """
    chance = random.Random(0)  # noqa: S311 - no secret
    shuffled = list(texts)
    chance.shuffle(shuffled)
    chosen = [[], *_mixed(chance, shuffled, sorted(special))]
    # What begins or ends with a space matters most where the text begins or ends.
    chosen += [[token] for token in shuffled[_ALONE:] if texts[token] != texts[token].strip()]
    chosen += [[token] for token in shuffled[:_ALONE]]
    chosen += _pieces(chance, shuffled)
    samples = []
    for ids in chosen:
        text = decoded(tokenizer, ids)
        if text is not None:
            samples.append(Sample(ids, text))
        elif not special.issuperset(ids):
            raise ExportError(f"the tokenizer {type(tokenizer).__name__} fails to decode the ids {ids} in transformers")
    return samples


def decoded(tokenizer: Any, ids: list[int]) -> str | None:
    """The text that transformers makes of token ids; None where it fails, as some do with nothing left to decode."""
    try:
        text: str = tokenizer.decode(ids, skip_special_tokens=True)
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return text


def first_difference(candidate: Tokenizer, samples: list[Sample]) -> int | None:
    """The place of the first sample that the candidate decodes otherwise; None where there is none."""
    return next(
        (
            place
            for place, sample in enumerate(samples)
            if candidate.decode(sample.ids, skip_special_tokens=True) != sample.text
        ),
        None,
    )


def _mixed(chance: random.Random, tokens: list[int], special: list[int]) -> list[list[int]]:
    """Few different tokens a sequence, so that some follow themselves."""
    sequences = []
    for _ in range(_MIXED if tokens else 0):
        few = chance.choices(tokens, k=chance.randint(1, 8)) + chance.choices(special, k=min(1, len(special)))
        sequences.append(chance.choices(few, k=chance.randint(1, 16)))
    return sequences


def _pieces(chance: random.Random, tokens: list[int]) -> list[list[int]]:
    pieces, begin = [], 0
    while begin < len(tokens):
        end = begin + chance.randint(2, _LONGEST)
        pieces.append(tokens[begin:end])
        begin = end
    return pieces
