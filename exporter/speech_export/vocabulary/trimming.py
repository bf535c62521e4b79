"""The record of a smaller vocabulary for the manifest: what was left out, and what that costs on a text."""

from collections.abc import Sequence
from pathlib import Path

from speech_runtime.bundle.graph_io import DECODER_WITH_PAST
from speech_runtime.bundle.manifest import Trimming
from speech_runtime.bundle.vocabulary import Vocabulary

from ..precision.options import Precision, PrecisionOptions
from ..sources.composite import Composite
from ..tracing.kept_rows import weights_left_out
from .files import KINDS
from .lost_words import lost_words

_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1, "int4": 1}
"""Bytes of a weight of the embedding and the head; int4 has them in int8."""


def trimming(
    composite: Composite,
    vocabulary: Vocabulary,
    files: Sequence[str | Path],
    check: str | Path | None,
    options: PrecisionOptions,
) -> Trimming | None:
    """Return the record of `vocabulary`, not yet measured on audio; None if it keeps all tokens.

    Args:
        composite: Model.
        vocabulary: Tokens that are kept.
        files: Files that named them.
        check: Text to look for lost words in; None for none.
        options: Precision of the decoder.

    Raises:
        ExportError: The decoder has no plain embedding and head, or `check` cannot be read.
    """
    if vocabulary.kept is None:
        return None
    weights = weights_left_out(composite.model.decoder, vocabulary)
    found = None if check is None else lost_words(check, composite.tokenizer, vocabulary)
    return Trimming(
        files=tuple(f"{Path(file).name} ({KINDS[Path(file).suffix]})" for file in files),
        weights=weights,
        bytes_saved=weights * _BYTES[options.of(DECODER_WITH_PAST)],
        text_words=None if found is None else found.words,
        lost_words=None if found is None else found.lost,
        lost_examples=() if found is None else found.examples,
    )
