"""Text of sequences: the tokenizer of a bundle, and strings that end a sequence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer
from tokenizers.models import BPE

from ..bundle.loading import Bundle
from ..bundle.manifest import TOKENIZER
from ..errors import BundleError, EngineMemoryError, GenerationError
from ..neutral_arguments import NeutralArgument
from .search.base import Tokens
from .search.stopping import StoppingCriterion

_NO_TIMES = NeutralArgument((False,), "tokens have no times here; transcribe pieces of a recording")
_NO_NORMALISER = NeutralArgument((False,), "texts are not normalised here; normalise the text that is returned")
_DECODING_ARGUMENTS = {
    **dict.fromkeys(
        ("output_offsets", "output_char_offsets", "output_word_offsets", "decode_with_timestamps"), _NO_TIMES
    ),
    **dict.fromkeys(("normalize", "basic_normalize", "remove_diacritics"), _NO_NORMALISER),
    "spaces_between_special_tokens": NeutralArgument((), "spaces are those of the bundle's tokenizer; leave it out"),
    "use_source_tokenizer": NeutralArgument((False,), "a bundle has one tokenizer; leave it out"),
}


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


def texts_of(
    tokenizer: Tokenizer, sequences: Sequence[Sequence[int]], *, skip_special_tokens: bool = True
) -> list[str]:
    """Decode sequences, by default without special tokens.

    Raises:
        EngineMemoryError: The library has no memory left.
    """
    try:
        texts: list[str] = tokenizer.decode_batch(sequences, skip_special_tokens=skip_special_tokens)
    except Exception:
        raise
    except BaseException as error:
        # A Rust panic. All ids can be decoded, so the cause is memory, such as that of the threads that it starts.
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise EngineMemoryError(f"the memory is exhausted, the tokenizer could not decode: {error}") from error
    return texts


def decoding_arguments(tokenizer: Tokenizer | None) -> dict[str, NeutralArgument]:
    """Return the arguments of `decode` in transformers that change nothing with some of their values.

    What they changed by default when the model was exported is a part of the bundle's decoder. transformers never
    cleans up after BPE, and groups the tokens of CTC tokenizers only.
    """
    decoder = b"" if tokenizer is None or tokenizer.decoder is None else tokenizer.decoder.__getstate__()
    cleans, groups = b'" n\'t"' in decoder, b'"type":"CTC"' in decoder
    never_cleans = not cleans and tokenizer is not None and isinstance(tokenizer.model, BPE)
    return {
        "clean_up_tokenization_spaces": NeutralArgument(
            (True, False) if never_cleans else (cleans,),
            f"the bundle's tokenizer {'removes' if cleans else 'keeps'} spaces before punctuation; leave it out",
        ),
        "group_tokens": NeutralArgument(
            (True,) if groups else (True, False), "the bundle's tokenizer writes repeated tokens once; leave it out"
        ),
        **_DECODING_ARGUMENTS,
    }


def decoded(tokenizer: Tokenizer | None, token_ids: Any, *, skip_special_tokens: bool) -> str | list[str]:
    """Decode token ids [tokens] to a text, or several rows of them, of any lengths, to a list of texts.

    Negative ids are left out: they fill a batch where there is no padding token.

    Raises:
        BundleError: There is no tokenizer.
        GenerationError: They are not integers.
    """
    if tokenizer is None:
        raise BundleError(f"the bundle has no {TOKENIZER}: token ids cannot be decoded")
    given: Any = [token_ids] if isinstance(token_ids, int | np.integer) else token_ids
    several = len(given) > 0 and np.ndim(given[0]) > 0
    rows = [_token_list(row) for row in (given if several else [given])]
    texts = texts_of(tokenizer, rows, skip_special_tokens=skip_special_tokens)
    return texts if several else texts[0]


def _token_list(row: ArrayLike) -> list[int]:
    given = np.asarray(row)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise GenerationError(
            f"token ids must be integers [tokens] or [batch, tokens], a row is {given.dtype} {list(given.shape)}"
        )
    return [token for token in given.tolist() if token >= 0]


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


def token_name(tokenizer: Tokenizer | None, token: int) -> str:
    """Return the name of a token for an error: its text, if there is a tokenizer, and its id."""
    text = None if tokenizer is None else tokenizer.id_to_token(token)
    return str(token) if text is None else f"{text!r} ({token})"


def stop_strings(tokenizer: Tokenizer, strings: tuple[str, ...], prompt_length: int) -> StoppingCriterion:
    """Return a criterion that ends sequences whose new text contains one of `strings`; it may end within a token."""

    def ended(sequences: Tokens) -> NDArray[np.bool_]:
        texts = texts_of(tokenizer, sequences[:, prompt_length:].tolist())
        return np.array([any(string in text for string in strings) for text in texts])

    return ended
