"""Streams: the text of a sequence, or its tokens, as soon as the search has decided on them."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from .search.base import Tokens
from .text import texts_of

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""Character that a tokenizer decodes an incomplete character to: its remaining bytes are in tokens still to come."""


class Streamer(Protocol):
    """What transformers calls a streamer; its `TextStreamer` and `TextIteratorStreamer` are two of them."""

    def put(self, value: Any) -> object:
        """Take the prompt, int64 [1, tokens], and then every new token, int64 [1], as numpy arrays."""

    def end(self) -> object:
        """Take notice that the sequence has ended."""


class Stream(Protocol):
    """Receives the tokens of an utterance."""

    def __call__(self, decided: Sequence[int]) -> None:
        """Take all decided tokens of the utterance, the prompt included."""

    def end(self, sequence: Sequence[int]) -> None:
        """Take the final sequence."""


class WordStream:
    """Passes on the text of a sequence, word by word."""

    def __init__(self, tokenizer: Tokenizer, prompt_length: int, write: Callable[[str], object]) -> None:
        self._tokenizer = tokenizer
        self._prompt_length = prompt_length
        self._write = write
        self._written = ""

    def __call__(self, decided: Sequence[int]) -> None:
        """Write the complete words in the decided tokens; the prompt is among them."""
        text = self._text(decided)
        self._write_new(text[: _complete_length(text)])

    def end(self, sequence: Sequence[int]) -> None:
        """Write the rest of the final sequence."""
        self._write_new(self._text(sequence))

    def _text(self, sequence: Sequence[int]) -> str:
        return texts_of(self._tokenizer, [sequence[self._prompt_length :]])[0]

    def _write_new(self, text: str) -> None:
        if len(text) > len(self._written) and text.startswith(self._written):
            self._write(text[len(self._written) :])
            self._written = text


class TokenStream:
    """Passes on the tokens of a sequence to a streamer, one by one, after the prompt."""

    def __init__(self, prompt: Tokens, streamer: Streamer) -> None:
        self._streamer = streamer
        self._count = prompt.shape[1]
        streamer.put(prompt.copy())

    def __call__(self, decided: Sequence[int]) -> None:
        """Pass on the tokens that were decided since the last call."""
        self._put(decided)

    def end(self, sequence: Sequence[int]) -> None:
        """Pass on the rest of the final sequence, and the end."""
        self._put(sequence)
        self._streamer.end()

    def _put(self, sequence: Sequence[int]) -> None:
        for token in sequence[self._count :]:
            self._streamer.put(np.array([token], dtype=np.int64))
        self._count = max(self._count, len(sequence))


def _complete_length(text: str) -> int:
    """Return the length of the text up to the end of its last complete word, as `transformers.TextStreamer` does.

    Chinese and Japanese characters are complete words.
    """
    if text.endswith(_INCOMPLETE):
        return len(text[: text.index(_INCOMPLETE)].rpartition(" ")[0])
    if text and 0x2E80 <= ord(text[-1]) <= 0x9FFF:
        return len(text)
    return len(text.rpartition(" ")[0])
