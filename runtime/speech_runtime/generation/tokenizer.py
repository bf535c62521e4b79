"""The tokenizer of a bundle."""

from pathlib import Path

from tokenizers import Tokenizer

from ..errors import BundleError


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        BundleError: it is none.
    """
    try:
        return Tokenizer.from_file(str(path))
    except BaseException as error:  # the library raises its own errors, and where Rust panics one with no other base
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise BundleError(f"{path} cannot be read: {error}; export the model again") from error
