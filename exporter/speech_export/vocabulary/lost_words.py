"""The words of a text that a bundle can no longer say as its tokenizer writes them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speech_runtime.bundle.vocabulary import Vocabulary
from speech_runtime.paths import expanded

from ..errors import ExportError
from .files import batches, encoded, lines

_EXAMPLES = 5
_WORDS_AT_ONCE = 1000


@dataclass(frozen=True)
class LostWords:
    """How many words of a text need a token that is left out.

    Attributes:
        words: Number of words of the text.
        lost: Number of these that need one.
        examples: The most frequent ones.
    """

    words: int
    lost: int
    examples: tuple[str, ...]


def lost_words(file: str | Path, tokenizer: Any | None, vocabulary: Vocabulary) -> LostWords:
    """Count the words of the text in `file`, and those of them that need a token which `vocabulary` leaves out.

    Words stand between spaces, and each has the tokens that it has after a space. A lost word could still be spelt with
    shorter tokens, which a model rarely does.

    Raises:
        ExportError: The file cannot be read or has no words, or the model is exported without its tokenizer.
    """
    if tokenizer is None:
        raise ExportError(
            f"--vocabulary-check {file} is text, and the model is exported without its tokenizer; leave it out"
        )
    counts = Counter(word for line in lines(Path(expanded(file)), "--vocabulary-check") for word in line.split())
    if not counts:
        raise ExportError(f"--vocabulary-check {file} has no words; name a text, or leave it out")
    lost: Counter[str] = Counter()
    for words in batches(counts, _WORDS_AT_ONCE):
        for word, tokens in zip(words, encoded(tokenizer, [f" {word}" for word in words]), strict=True):
            if vocabulary.left_out(tokens):
                lost[word] = counts[word]
    return LostWords(counts.total(), lost.total(), tuple(word for word, _ in lost.most_common(_EXAMPLES)))
