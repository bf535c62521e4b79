"""The tokenizer of a bundle."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from ..bundle.loading import Bundle
from ..bundle.manifest import TOKENIZER
from ..errors import BundleError, EngineMemoryError


def tokenizer_of(bundle: Bundle) -> Tokenizer | None:
    """Read the tokenizer of a bundle; None where the bundle has none.

    Tokens added to its vocabulary may be more than the decoder has: checkpoints carry some that no text has. The
    vocabulary itself may be smaller, as many decoders are filled up to a round number, but not larger. What the file
    says of truncation and padding is left aside: it is what its last user asked for, and would change what is scored.

    Raises:
        BundleError: the file cannot be read, or belongs to a decoder of another vocabulary.
    """
    if not bundle.has(TOKENIZER):
        return None
    path, vocab_size = bundle.path(TOKENIZER), bundle.manifest.decoder.vocab_size
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except BaseException as error:  # the library's own; where Rust panics, one of no other base
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
    """Decode sequences, special tokens left out.

    Raises:
        EngineMemoryError: the library has no memory left.
    """
    try:
        texts: list[str] = tokenizer.decode_batch(sequences, skip_special_tokens=True)
    except Exception:
        raise
    except BaseException as error:
        # Where Rust panics: any ids can be decoded, and so it is the memory, of the threads for example that it starts.
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise EngineMemoryError(f"the memory is exhausted, the tokenizer could not decode: {error}") from error
    return texts


def token_ids(tokenizer: Tokenizer | None, text: str) -> list[int]:
    """Encode a text without special tokens.

    Raises:
        BundleError: there is no tokenizer, or it only decodes.
    """
    if tokenizer is None:
        raise BundleError(f"the bundle has no {TOKENIZER}: texts cannot be scored")
    try:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    except Exception as error:  # the library's own, where a tokenizer only decodes
        raise BundleError(f"the bundle's {TOKENIZER} only decodes, it cannot encode {text!r}") from error
    return ids
