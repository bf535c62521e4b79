"""Sample texts of a tokenizer, to compare another tokenizer with."""

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
    """Token ids, and the text that transformers decodes them to without special tokens."""

    ids: list[int]
    text: str


def evidence(tokenizer: Any, texts: dict[int, str], special: set[int]) -> list[Sample]:
    """Return samples with every token among others, and many alone, first, last, repeated and beside special tokens.

    The samples of a tokenizer are always the same.

    Args:
        tokenizer: Tokenizer of transformers.
        texts: Token id → text, for all tokens.
        special: Ids of the tokens that decode to no text.

    Raises:
        ExportError: The tokenizer fails to decode ordinary tokens.
    """
    chance = random.Random(0)  # noqa: S311 - no secret
    shuffled = list(texts)
    chance.shuffle(shuffled)
    chosen = [[], *_mixed(chance, shuffled, sorted(special))]
    # A leading or trailing space of a token matters most at the beginning or end of a text.
    chosen += [[token] for token in shuffled[_ALONE:] if texts[token] != texts[token].strip()]
    chosen += [[token] for token in shuffled[:_ALONE]]
    chosen += _pieces(chance, shuffled)
    earlier = _earlier_text(tokenizer)
    samples = []
    for ids in chosen:
        if earlier is not None and ids[:1] == [earlier]:
            continue
        text = decoded(tokenizer, ids)
        if text is not None:
            samples.append(Sample(ids, text))
        elif not special.issuperset(ids):
            raise ExportError(f"the tokenizer {type(tokenizer).__name__} fails to decode the ids {ids} in transformers")
    return samples


def _earlier_text(tokenizer: Any) -> int | None:
    """Return Whisper's token for earlier text, None for other tokenizers.

    Whisper's tokenizer leaves out what follows it at the beginning of a sequence, up to the start token. It is there in
    prompts only.
    """
    return tokenizer.convert_tokens_to_ids("<|startofprev|>") if hasattr(tokenizer, "get_prompt_ids") else None


def decoded(tokenizer: Any, ids: list[int]) -> str | None:
    """Return the text that transformers decodes `ids` to; None if it fails, as some do if nothing is left to decode."""
    try:
        text: str = tokenizer.decode(ids, skip_special_tokens=True)
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return text


def first_difference(candidate: Tokenizer, samples: list[Sample]) -> int | None:
    """Return the index of the first sample that `candidate` decodes differently; None if it decodes all of them."""
    return next(
        (
            index
            for index, sample in enumerate(samples)
            if candidate.decode(sample.ids, skip_special_tokens=True) != sample.text
        ),
        None,
    )


def _mixed(chance: random.Random, tokens: list[int], special: list[int]) -> list[list[int]]:
    """Return sequences of few different tokens, so that some tokens are repeated."""
    sequences = []
    for _ in range(_MIXED if tokens else 0):
        few = chance.choices(tokens, k=chance.randint(1, 8)) + chance.choices(special, k=min(1, len(special)))
        sequences.append(chance.choices(few, k=chance.randint(1, 16)))
    return sequences


def _pieces(chance: random.Random, tokens: list[int]) -> list[list[int]]:
    """Cut `tokens` into sequences of random lengths."""
    pieces, begin = [], 0
    while begin < len(tokens):
        end = begin + chance.randint(2, _LONGEST)
        pieces.append(tokens[begin:end])
        begin = end
    return pieces
