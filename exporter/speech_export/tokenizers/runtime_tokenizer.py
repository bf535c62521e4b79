"""Convert any tokenizer of transformers to one of the `tokenizers` library, and check that both decode alike."""

import logging
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import AddedToken, Tokenizer, models
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..errors import ExportError, shortened
from .decoders import cleaned, distinct_names, known_decoders, without_timestamps
from .evidence import Sample, decoded, evidence, first_difference

logger = logging.getLogger(__name__)

_DECODES_ONLY = "(this tokenizer only decodes)"
"""Unknown token that is in no vocabulary: the library then refuses to encode, instead of encoding wrongly."""

_BRACKETED = re.compile(r"<.+>\Z|\[.+\]\Z")

_FEW = 200
"""Number of samples that most wrong decoders fail on; the others are compared only after these."""


def runtime_tokenizer(tokenizer: Any) -> Tokenizer:
    """Return a tokenizer that decodes as `tokenizer` does in transformers, without special tokens.

    A tokenizer with a backend of the `tokenizers` library keeps it, if both decode alike; a step that transformers adds
    in Python, such as `clean_up_tokenization_spaces`, becomes part of its decoder. Of a pure-Python tokenizer only the
    tokens and the way they are joined are kept, so the result cannot encode. Both are compared on every token, alone or
    among others. The result neither truncates nor pads: those settings belong to the last call of `tokenizer`.

    Args:
        tokenizer: Any `PreTrainedTokenizerBase`.

    Returns:
        A copy, as read from its JSON.

    Raises:
        ExportError: The library has no decoder that gives the same texts.
    """
    texts = _texts(tokenizer)
    special = _special(tokenizer, texts)
    samples = evidence(tokenizer, texts, special)
    nearest, agreed = Sample([], ""), -1
    for candidate in _candidates(tokenizer, texts, special):
        index = first_difference(candidate, samples[:_FEW])
        if index is None:
            candidate = Tokenizer.from_str(candidate.to_str())  # a copy: the tokenizer's own backend stays as it is
            candidate.no_truncation()
            candidate.no_padding()
            index = first_difference(candidate, samples)
            if index is None:
                return candidate
        if index > agreed:
            ids = samples[index].ids
            nearest, agreed = Sample(ids, candidate.decode(ids, skip_special_tokens=True)), index
    raise ExportError(_error(tokenizer, samples[max(agreed, 0)], nearest))


def has_words(tokenizer: Any) -> bool:
    """Return whether a tokenizer has more than special tokens: without a file, transformers makes one of these.

    That of mBART has a space, too.
    """
    return len(set(tokenizer.get_vocab().values()) - _special_ids(tokenizer)) > 1


def check_tokenizer(tokenizer: Any, vocab_size: int) -> None:
    """Check that the words of a tokenizer are in the model's vocabulary.

    A warning names special tokens that are not: a padding token is often added without widening the model.

    Args:
        tokenizer: Any `PreTrainedTokenizerBase`.
        vocab_size: Vocabulary size of the decoder.

    Raises:
        ExportError: It has no ordinary words, or some are not in the vocabulary: it belongs to another model.
    """
    if not has_words(tokenizer):
        raise ExportError(
            "the tokenizer has no words, only special tokens: its vocabulary file is missing; name a directory that "
            "has it (--processor), or do without (--without tokenizer)"
        )
    beyond = {token: f"{name!r} ({token})" for name, token in tokenizer.get_vocab().items() if token >= vocab_size}
    special = _special_ids(tokenizer)
    words = [beyond[token] for token in sorted(beyond) if token not in special]
    if words:
        raise ExportError(
            f"the tokenizer has {len(words):,} words beyond the {vocab_size:,} of the model: {shortened(words)}; it "
            "belongs to another model; name the right one (--processor), or do without (--without tokenizer)"
        )
    if beyond:
        names = shortened([beyond[token] for token in sorted(beyond)])
        logger.warning("The tokenizer has special tokens that the model lacks and never generates: %s", names)


def _candidates(tokenizer: Any, texts: dict[int, str], special: set[int]) -> Iterator[Tokenizer]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        yield backend
        candidate = Tokenizer.from_str(backend.to_str())
        for decoder in (
            cleaned(backend.decoder),
            without_timestamps(backend.decoder),
            without_timestamps(cleaned(backend.decoder)),
        ):
            candidate.decoder = decoder
            yield candidate
    for written in (str, str.lower, str.upper, _bytes):
        names, duplicates = distinct_names({token: written(text) for token, text in texts.items()})
        candidate = _vocabulary(names, special)
        for decoder in known_decoders(tokenizer, duplicates=duplicates):
            candidate.decoder = decoder
            yield candidate


def _vocabulary(names: dict[int, str], special: set[int]) -> Tokenizer:
    vocabulary = {name: token for token, name in names.items()}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_DECODES_ONLY))
    tokenizer.add_special_tokens([AddedToken(names[token], special=True, normalized=False) for token in special])
    return tokenizer


def _bytes(text: str) -> str:
    """Replace a single byte by the character that stands for it in byte-level BPE; return other texts unchanged."""
    return bytes_to_unicode()[ord(text)] if len(text) == 1 and ord(text) < 256 else text


def _texts(tokenizer: Any) -> dict[int, str]:
    """Return token id → text, without ids that have no token or a token that is not valid Unicode."""
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


def _special_ids(tokenizer: Any) -> set[int]:
    return set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)


def _special(tokenizer: Any, texts: dict[int, str]) -> set[int]:
    """Return the ids that decode to no text: special tokens, and control pieces of SentencePiece, special or not.

    transformers counts a word delimiter among the special tokens, but decodes it.
    """
    names = set(tokenizer.all_special_tokens)
    delimiter = getattr(tokenizer, "word_delimiter_token", None)
    likely = [token for token, text in texts.items() if text != delimiter and (text in names or _BRACKETED.match(text))]
    return {token for token in likely if not decoded(tokenizer, [token])}


def _error(tokenizer: Any, expected: Sample, nearest: Sample) -> str:
    return (
        f"the tokenizer {type(tokenizer).__name__} cannot be written as tokenizer.json: transformers "
        f"decodes the ids {expected.ids} to {expected.text!r}, the nearest decoder to {nearest.text!r}; export the "
        "model without it (--without tokenizer, or tokenizer=None in Python) and decode its ids with transformers"
    )
