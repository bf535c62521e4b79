"""Files that say which tokens to keep. The end of a file's name says what is in it, so nothing is guessed.

- `.ids`: a token id on each line.
- `.tokens`: a token on each line, as the tokenizer's vocabulary has it, such as `▁the` or `##ing`.
- `.txt`: text in UTF-8, whose tokens count.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

from speech_runtime.bundle.safe_files import is_there, open_regular
from speech_runtime.dataclass_json import shown
from speech_runtime.paths import expanded

from ..errors import ExportError

KINDS = {".ids": "token ids", ".tokens": "tokens", ".txt": "text"}
"""What a file holds, by the end of its name."""
_ENDINGS = ".ids (a token id on each line), .tokens (a token on each line) or .txt (text)"
_LINES_AT_ONCE = 1000


def check_vocabulary_files(vocabulary: Sequence[str | Path], check: str | Path | None) -> None:
    """Check, before a model is loaded, that the files are there and have names that say what is in them.

    Args:
        vocabulary: Files of tokens to keep.
        check: Text to look for words in that can no longer be said.

    Raises:
        ExportError: One is not, or `check` is given without `vocabulary`.
    """
    if check is not None and not vocabulary:
        raise ExportError(
            f"--vocabulary-check {check} is given without --vocabulary, and every word can be said; leave it out"
        )
    for path in vocabulary:
        _check(path, "--vocabulary", KINDS, _ENDINGS)
    if check is not None:
        _check(check, "--vocabulary-check", (".txt",), ".txt, for text")


def kept_by_file(path: Path, tokenizer: Any | None, vocab_size: int) -> set[int]:
    """Return the token ids that a file names.

    Args:
        path: File.
        tokenizer: Tokenizer of transformers; None if the model has none, which only token ids do without.
        vocab_size: Number of token ids of the model.

    Raises:
        ExportError: The file cannot be read, is empty, or has something that is no token of the model.
    """
    if path.suffix != ".ids" and tokenizer is None:
        raise ExportError(
            f"--vocabulary {path} has {KINDS[path.suffix]}, and the model is exported without its tokenizer; give "
            "token ids in a file that ends in .ids, or export it with the tokenizer"
        )
    if path.suffix == ".ids":
        ids = set(_each(path, lambda line: _token_id(line, vocab_size)))
    elif path.suffix == ".tokens":
        known = {token: number for token, number in tokenizer.get_vocab().items() if number < vocab_size}  # type: ignore[union-attr]
        ids = set(_each(path, lambda line: _token(line, known)))
    else:
        ids = _tokens_of_text(path, tokenizer)
        ids = {token for token in ids if token < vocab_size}
    if not ids:
        raise ExportError(f"--vocabulary {path} has no {KINDS[path.suffix]}; write some into it, or leave it out")
    return ids


def lines(path: Path, option: str = "--vocabulary") -> Iterator[str]:
    """Yield the lines of a file, without their ends; errors name `option`.

    Raises:
        ExportError: The file is not text in UTF-8.
    """
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise ExportError(f"{option} {path}, line {number}, has a zero byte: it is no text file")
                yield line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ExportError(f"{option} {path} is not text in UTF-8: {error.reason}; save it as UTF-8") from error
    except OSError as error:
        raise ExportError(f"{option} {path} cannot be read: {error.strerror}; check its permissions") from error


def batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield the items in lists of `size`; the last may have fewer."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def encoded(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Return the token ids of texts as a decoder writes them, without special tokens.

    Raises:
        ExportError: The tokenizer only decodes.
    """
    # Marian splits the two languages of a model in different ways. Other tokenizers look for a target language, which
    # may not be set.
    argument = "text_target" if hasattr(tokenizer, "spm_target") else "text"
    try:
        found: list[list[int]] = tokenizer(**{argument: texts}, add_special_tokens=False, verbose=False)["input_ids"]
    except NotImplementedError as error:
        raise ExportError(
            f"{type(tokenizer).__name__} only decodes, so the tokens of a text are not known; give tokens in a file "
            "that ends in .tokens"
        ) from error
    return found


def _check(given: str | Path, option: str, endings: Iterable[str], expected: str) -> None:
    path = Path(expanded(given))
    if path.suffix not in endings:
        raise ExportError(f"{option} {given}: its name says nothing about what is in it; it must end in {expected}")
    if not is_there(path):
        raise ExportError(f"{option} {given}: there is no such file; check its name")
    if not path.is_file():
        raise ExportError(f"{option} {given} is not a file; name a file that ends in {expected}")
    if path.stat().st_size == 0:
        raise ExportError(f"{option} {given} is empty; write something into it, or leave it out")


def _each(path: Path, read: Callable[[str], int]) -> Iterator[int]:
    """Yield the token id of each line that is not empty; an error names the line."""
    for number, line in enumerate(lines(path), start=1):
        if not line.strip():
            continue
        try:
            yield read(line)
        except ValueError as error:
            raise ExportError(f"--vocabulary {path}, line {number}: {error}") from None


def _token_id(line: str, vocab_size: int) -> int:
    text = line.strip()
    if not (text.isascii() and text.isdigit()):
        raise ValueError(
            f"{shown(text)} is no token id; tokens go into a file that ends in .tokens, and text into one that ends "
            "in .txt"
        )
    if (token := int(text[:20])) >= vocab_size:
        raise ValueError(f"the model has no token {text[:20]}, its token ids are 0 … {vocab_size - 1}; remove the line")
    return token


def _token(line: str, known: dict[str, int]) -> int:
    if line not in known:
        raise ValueError(
            f"{shown(line)} is no token of the tokenizer; correct it, or give text in a file that ends in .txt"
        )
    return known[line]


def _tokens_of_text(path: Path, tokenizer: Any) -> set[int]:
    """Return the tokens of each line. Byte-level tokenizers write its first word in another way after a space."""
    found: set[int] = set()
    has_words = False
    for part in batches(filter(str.strip, lines(path)), _LINES_AT_ONCE):
        has_words |= not all(line.strip().isdigit() for line in part)
        found.update(*encoded(tokenizer, part), *encoded(tokenizer, [f" {line}" for line in part]))
    if found and not has_words:
        raise ExportError(
            f"--vocabulary {path} has a number on each line and no word, and digits are always kept; token ids go into "
            "a file that ends in .ids"
        )
    return found
