"""Text of sequences: the tokenizer of a bundle, strings that end a sequence, and streaming."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..bundle.loading import Bundle
from ..bundle.manifest import TOKENIZER
from ..errors import BundleError, EngineMemoryError
from .search.base import Tokens
from .search.stopping import StoppingCriterion

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""Character that a tokenizer decodes an incomplete character to: its remaining bytes are in tokens still to come."""


def tokenizer_of(bundle: Bundle) -> Tokenizer | None:
    """Read the tokenizer of a bundle; return None if the bundle has none.

    Added tokens may exceed the decoder's vocabulary: checkpoints have some that no text contains. The vocabulary itself
    may be smaller, since many decoders are padded to a round number, but not larger. Truncation and padding in the
    file are ignored: they are settings of its last user, and would change the scores of texts.

    Raises:
        BundleError: The file cannot be read, or belongs to a decoder with another vocabulary.
    """
    if not bundle.has(TOKENIZER):
        return None
    path, vocab_size = bundle.path(TOKENIZER), bundle.manifest.decoder.vocab_size
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except BaseException as error:  # the library's own errors; a Rust panic derives from BaseException only
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise BundleError(f"{path} cannot be read: {error}; export the model again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if (tokens := tokenizer.get_vocab_size(with_added_tokens=False)) > vocab_size:
        raise BundleError(
            f"{path} has {tokens:,} tokens, the decoder has {vocab_size:,}: it is the tokenizer of another model; "
            "export the model again with its own"
        )
    return tokenizer


def texts_of(tokenizer: Tokenizer, sequences: Sequence[Sequence[int]]) -> list[str]:
    """Decode sequences without special tokens.

    Raises:
        EngineMemoryError: The library has no memory left.
    """
    try:
        texts: list[str] = tokenizer.decode_batch(sequences, skip_special_tokens=True)
    except Exception:
        raise
    except BaseException as error:
        # A Rust panic. All ids can be decoded, so the cause is memory, such as that of the threads that it starts.
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise EngineMemoryError(f"the memory is exhausted, the tokenizer could not decode: {error}") from error
    return texts


def token_ids(tokenizer: Tokenizer | None, text: str) -> list[int]:
    """Encode a text without special tokens.

    Raises:
        BundleError: There is no tokenizer, or it only decodes.
    """
    if tokenizer is None:
        raise BundleError(f"the bundle has no {TOKENIZER}: texts cannot be scored")
    try:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    except Exception as error:  # the library's own error if a tokenizer only decodes
        raise BundleError(f"the bundle's {TOKENIZER} only decodes, it cannot encode {text!r}") from error
    return ids


def stop_strings(tokenizer: Tokenizer, strings: tuple[str, ...], prompt_length: int) -> StoppingCriterion:
    """Return a criterion that ends sequences whose new text contains one of `strings`; it may end within a token."""

    def ended(sequences: Tokens) -> NDArray[np.bool_]:
        texts = texts_of(tokenizer, sequences[:, prompt_length:].tolist())
        return np.array([any(string in text for string in strings) for text in texts])

    return ended


class TextStream:
    """Passes on the text of a sequence, word by word, as soon as the search has decided on it."""

    def __init__(self, tokenizer: Tokenizer, prompt_length: int, write: Callable[[str], object]) -> None:
        self._tokenizer = tokenizer
        self._prompt_length = prompt_length
        self._write = write
        self._written = ""

    def __call__(self, decided: list[list[int]]) -> None:
        """Write the complete words in the decided tokens of the only utterance; the prompt is among the tokens."""
        text = self._text(decided[0])
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


def _complete_length(text: str) -> int:
    """Return the length of the text up to the end of its last complete word, as `transformers.TextStreamer` does.

    Chinese and Japanese characters are complete words.
    """
    if text.endswith(_INCOMPLETE):
        return len(text[: text.index(_INCOMPLETE)].rpartition(" ")[0])
    if text and 0x2E80 <= ord(text[-1]) <= 0x9FFF:
        return len(text)
    return len(text.rpartition(" ")[0])
