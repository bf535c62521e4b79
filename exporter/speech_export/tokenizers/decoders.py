"""The decoders of transformers' tokenizers, rebuilt from decoders of the `tokenizers` library."""

import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Regex, decoders

TextDecoder = Any
"""Any of `tokenizers.decoders`; the library has no public base class."""

_WHITESPACE = r"[\s\x1c-\x1f]+"
"""Characters that `str.strip` removes. The library's own `Strip` lacks four control characters."""

_SPACED = decoders.WordPiece(prefix="\0", cleanup=False)
"""`" ".join(tokens)`: no token begins with this prefix, so none is joined to the one before it."""

_DUPLICATE = "\0"
"""Suffix that tells tokens with the same text apart, see `distinct_names`."""

_TRIMS: tuple[tuple[TextDecoder, ...], ...] = (
    (),
    (decoders.Replace(Regex(rf"\A{_WHITESPACE}"), ""), decoders.Replace(Regex(rf"{_WHITESPACE}\z"), "")),
    (decoders.Replace(Regex(r"\A +"), ""),),
    (decoders.Replace(Regex(r"\A "), ""),),
)
"""Ways to trim a text: not at all, like `str.strip`, and without all leading spaces or one, as SentencePiece does."""

_CLEANED = [
    decoders.Replace(found, kept)
    for found, kept in (
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    )
]
"""Replacements of `PreTrainedTokenizerBase.clean_up_tokenization`, which transformers applies after any decoder."""


def cleaned(decoder: TextDecoder | None) -> TextDecoder:
    """Return the decoder of a fast tokenizer, followed by the clean-up of spaces.

    Args:
        decoder: Decoder of the tokenizer; None if it joins tokens with spaces.
    """
    return decoders.Sequence([_SPACED if decoder is None else decoder, decoders.Fuse(), *_CLEANED])


def without_timestamps(decoder: TextDecoder | None) -> TextDecoder:
    """Return the decoder of a fast tokenizer, followed by the removal of Whisper's times, which are not special tokens.

    Args:
        decoder: As in `cleaned`.
    """
    times = decoders.Replace(Regex(r"<\|\d+\.\d+\|>"), "")
    return decoders.Sequence([_SPACED if decoder is None else decoder, decoders.Fuse(), times])


def known_decoders(tokenizer: Any, *, duplicates: bool) -> Iterator[TextDecoder]:
    """Yield every decoder that may be equivalent to a pure-Python tokenizer, the most likely ones first.

    Args:
        tokenizer: Tokenizer of transformers; its settings for spaces, padding and word delimiters are used.
        duplicates: If true, remove the suffix that `distinct_names` added to some tokens.
    """
    first = [decoders.Replace(_DUPLICATE, "")] if duplicates else []
    for clean in ([], _CLEANED) if not tokenizer.clean_up_tokenization_spaces else (_CLEANED, []):
        for trim in _TRIMS:
            for joined in _joined(tokenizer):
                yield decoders.Sequence([*first, *joined, decoders.Fuse(), *trim, *clean])


def _joined(tokenizer: Any) -> Iterator[list[TextDecoder]]:
    yield [_SPACED]
    yield [decoders.Fuse()]
    yield [decoders.WordPiece(prefix="##", cleanup=False)]  # BERT
    yield [decoders.Fuse(), decoders.Replace("▁", " ")]  # SentencePiece
    yield [_SPACED, decoders.Fuse(), decoders.Replace("@@ ", "")]  # subword-nmt, fairseq
    yield [decoders.Fuse(), decoders.Replace("</w>", " ")]  # XLM, and GPT before bytes
    yield [decoders.ByteLevel()]
    yield [decoders.ByteLevel(), decoders.Replace("\N{REPLACEMENT CHARACTER}", "")]  # invalid UTF-8 is left out
    if hasattr(tokenizer, "word_delimiter_token"):  # CTC: repeated tokens count once
        delimiter = tokenizer.word_delimiter_token or ""
        space = getattr(tokenizer, "replace_word_delimiter_char", " ")
        once = decoders.CTC(pad_token=str(tokenizer.pad_token), word_delimiter_token=delimiter, cleanup=False)
        yield [once, decoders.Replace(Regex(rf"\A{re.escape(delimiter)}\z"), space)]
        yield [once, _SPACED]


def distinct_names(texts: dict[int, str]) -> tuple[dict[int, str], bool]:
    """Return a unique name for each token, as a vocabulary requires, and true if any name has a suffix for that.

    In some tokenizers several tokens have the same text, mostly unused ids, all of which are the unknown token.

    Args:
        texts: Token id → text.
    """
    seen: dict[str, int] = {}
    names = {}
    for token, text in texts.items():
        names[token] = text + _DUPLICATE * seen.get(text, 0)
        seen[text] = seen.get(text, 0) + 1
    return names, len(seen) < len(texts)
