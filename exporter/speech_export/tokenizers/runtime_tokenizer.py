"""`runtime_tokenizer`: any tokenizer of transformers as one of the `tokenizers` library, proven to decode alike."""

import re
from collections.abc import Iterator
from typing import Any

from tokenizers import AddedToken, Tokenizer, models
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..errors import ExportError
from .decoders import cleaned, distinct, known
from .evidence import Sample, decoded, evidence, first_difference

_DECODES_ONLY = "(this tokenizer only decodes)"
"""The unknown token of a vocabulary that has none: so the library refuses to encode, rather than encode wrongly."""

_BRACKETED = re.compile(r"<.+>\Z|\[.+\]\Z")

_FEW = 200
"""Samples that tell most wrong decoders from the right one."""


def runtime_tokenizer(tokenizer: Any) -> Tokenizer:
    """A tokenizer that decodes as the given one does in transformers, with special tokens left out.

    That is the tokenizer's own backend where it has one that agrees with it. What transformers adds in Python, such as
    `clean_up_tokenization_spaces`, becomes part of the decoder. Of a tokenizer that is all Python there remain the
    tokens and the way in which they are joined, and the result decodes only. Nothing is taken on trust: every token is
    decoded with both, alone or among others. It neither truncates nor pads: transformers stores what its last call
    asked for, and no other call is meant by it.

    Args:
        tokenizer: any `PreTrainedTokenizerBase`.

    Returns:
        The tokenizer, as its JSON is read.

    Raises:
        ExportError: the library has no decoder that says the same.
    """
    texts = _texts(tokenizer)
    special = _special(tokenizer, texts)
    samples = evidence(tokenizer, texts, special)
    nearest, agreed = Sample([], ""), -1
    for candidate in _candidates(tokenizer, texts, special):
        place = first_difference(candidate, samples[:_FEW])
        if place is None:
            candidate = Tokenizer.from_str(candidate.to_str())  # a copy: the tokenizer's own backend stays as it is
            candidate.no_truncation()
            candidate.no_padding()
            place = first_difference(candidate, samples)
            if place is None:
                return candidate
        if place > agreed:
            ids = samples[place].ids
            nearest, agreed = Sample(ids, candidate.decode(ids, skip_special_tokens=True)), place
    raise ExportError(_complaint(tokenizer, samples[max(agreed, 0)], nearest))


def _candidates(tokenizer: Any, texts: dict[int, str], special: set[int]) -> Iterator[Tokenizer]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        yield backend
        candidate = Tokenizer.from_str(backend.to_str())
        candidate.decoder = cleaned(backend.decoder)
        yield candidate
    for written in (str, str.lower, str.upper, _bytes):
        names, duplicates = distinct({token: written(text) for token, text in texts.items()})
        candidate = _vocabulary(names, special)
        for decoder in known(tokenizer, duplicates=duplicates):
            candidate.decoder = decoder
            yield candidate


def _vocabulary(names: dict[int, str], special: set[int]) -> Tokenizer:
    vocabulary = {name: token for token, name in names.items()}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_DECODES_ONLY))
    tokenizer.add_special_tokens([AddedToken(names[token], special=True, normalized=False) for token in special])
    return tokenizer


def _bytes(text: str) -> str:
    """The character that stands for a byte, of one that is the byte; any other text is what it is."""
    return bytes_to_unicode()[ord(text)] if len(text) == 1 and ord(text) < 256 else text


def _texts(tokenizer: Any) -> dict[int, str]:
    """Token → what it says; without the numbers that have no token, or none that can be written."""
    last = max(tokenizer.get_vocab().values(), default=-1)
    texts = {}
    for token in range(max(len(tokenizer), last + 1)):
        try:
            text = tokenizer.convert_ids_to_tokens(token)
            if text is not None:
                text.encode()
                texts[token] = text
        except (IndexError, KeyError, TypeError, ValueError):
            continue
    return texts


def _special(tokenizer: Any, texts: dict[int, str]) -> set[int]:
    """The tokens that are no text: special ones, and control pieces of SentencePiece, special or not.

    Transformers counts a delimiter of words among the special tokens, and yet decodes it.
    """
    names = set(tokenizer.all_special_tokens)
    delimiter = getattr(tokenizer, "word_delimiter_token", None)
    asked = [token for token, text in texts.items() if text != delimiter and (text in names or _BRACKETED.match(text))]
    return {token for token in asked if not decoded(tokenizer, [token])}


def _complaint(tokenizer: Any, expected: Sample, nearest: Sample) -> str:
    return (
        f"the tokenizer {type(tokenizer).__name__} cannot be written as tokenizer.json: transformers makes "
        f"{expected.text!r} of the ids {expected.ids}, the nearest decoder {nearest.text!r}; export the model "
        "without it (--without tokenizer, or tokenizer=None in Python) and decode its ids with transformers"
    )
