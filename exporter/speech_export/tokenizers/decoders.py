"""The ways in which transformers' tokenizers make text of tokens, in steps of the `tokenizers` library."""

import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Regex, decoders

TextDecoder = Any
"""Any of `tokenizers.decoders`; the library has no public base class."""

_WHITESPACE = r"[\s\x1c-\x1f]+"
"""What `str.strip` takes away; the library's own class lacks four control characters of it."""

_SPACED = decoders.WordPiece(prefix="\0", cleanup=False)
"""`" ".join(tokens)`: pieces of words, of which none continues one, as none begins with the prefix."""

_DUPLICATE = "\0"
"""What tells tokens of one text apart, see `distinct`."""

_TRIMS: tuple[tuple[TextDecoder, ...], ...] = (
    (),
    (decoders.Replace(Regex(rf"\A{_WHITESPACE}"), ""), decoders.Replace(Regex(rf"{_WHITESPACE}\z"), "")),
    (decoders.Replace(Regex(r"\A +"), ""),),
    (decoders.Replace(Regex(r"\A "), ""),),
)
"""Nothing, `str.strip`, and the one or many spaces that SentencePiece leaves out in front."""

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
"""`PreTrainedTokenizerBase.clean_up_tokenization`, which transformers applies after any decoder."""


def cleaned(decoder: TextDecoder | None) -> TextDecoder:
    """The decoder of a fast tokenizer, with the clean-up of spaces after it.

    Args:
        decoder: of the tokenizer; None joins tokens by spaces.
    """
    return decoders.Sequence([_SPACED if decoder is None else decoder, decoders.Fuse(), *_CLEANED])


def known(tokenizer: Any, *, duplicates: bool) -> Iterator[TextDecoder]:
    """Every decoder that a tokenizer which is all Python may stand for, the likely ones first.

    Args:
        tokenizer: of transformers; what it says of spaces, blanks and delimiters goes into the decoders.
        duplicates: whether some tokens are marked as `distinct` marks them.
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
    yield [decoders.ByteLevel(), decoders.Replace("\N{REPLACEMENT CHARACTER}", "")]  # bytes that are no text left out
    if hasattr(tokenizer, "word_delimiter_token"):  # connectionist temporal classification: tokens repeated count once
        delimiter = tokenizer.word_delimiter_token or ""
        space = getattr(tokenizer, "replace_word_delimiter_char", " ")
        once = decoders.CTC(pad_token=str(tokenizer.pad_token), word_delimiter_token=delimiter, cleanup=False)
        yield [once, decoders.Replace(Regex(rf"\A{re.escape(delimiter)}\z"), space)]
        yield [once, _SPACED]


def distinct(texts: dict[int, str]) -> tuple[dict[int, str], bool]:
    """Tokens under names of their own, as a vocabulary needs them; and whether any had to be marked for it.

    Some tokenizers have tokens of one text, mostly ids that nothing uses: all of them are the unknown token.

    Args:
        texts: token → what it says.
    """
    seen: dict[str, int] = {}
    names = {}
    for token, text in texts.items():
        names[token] = text + _DUPLICATE * seen.get(text, 0)
        seen[text] = seen.get(text, 0) + 1
    return names, len(seen) < len(texts)
