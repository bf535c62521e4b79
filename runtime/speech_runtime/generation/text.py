"""Where text decides: strings that end a sequence, and text handed out while it is decided."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .search.base import Tokens
from .search.stopping import StoppingCriterion
from .tokenizer import texts_of

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a decoder makes of the first bytes of a character whose last ones are not there yet."""


def stop_strings(tokenizer: Tokenizer, strings: tuple[str, ...], prompt_length: int) -> StoppingCriterion:
    """End sequences whose new text has one of `strings`, which may end within the last token."""

    def ended(sequences: Tokens) -> NDArray[np.bool_]:
        texts = texts_of(tokenizer, sequences[:, prompt_length:].tolist())
        return np.array([any(string in text for string in strings) for text in texts])

    return ended


class TextStream:
    """Hands out the text of a sequence in whole words, as soon as its tokens are decided."""

    def __init__(self, tokenizer: Tokenizer, prompt_length: int, write: Callable[[str], object]) -> None:
        self._tokenizer = tokenizer
        self._prompt_length = prompt_length
        self._write = write
        self._written = ""

    def __call__(self, decided: list[list[int]]) -> None:
        """Take the decided tokens of the only utterance, the prompt included."""
        text = self._text(decided[0])
        self._hand_out(text[: _words_end(text)])

    def end(self, sequence: Sequence[int]) -> None:
        """Hand out what is left of the final sequence."""
        self._hand_out(self._text(sequence))

    def _text(self, sequence: Sequence[int]) -> str:
        return texts_of(self._tokenizer, [sequence[self._prompt_length :]])[0]

    def _hand_out(self, text: str) -> None:
        if len(text) > len(self._written) and text.startswith(self._written):
            self._write(text[len(self._written) :])
            self._written = text


def _words_end(text: str) -> int:
    """Where the last word that is sure to be whole ends; scripts without spaces are handed out character by character.

    As `transformers.TextStreamer` does it.
    """
    if text.endswith(_INCOMPLETE):
        return len(text[: text.index(_INCOMPLETE)].rpartition(" ")[0])
    if text and 0x2E80 <= ord(text[-1]) <= 0x9FFF:
        return len(text)
    return len(text.rpartition(" ")[0])
