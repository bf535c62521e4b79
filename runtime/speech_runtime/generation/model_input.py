"""Model input as callers give it: under the name that its feature extractor has for it, and in rows of any length."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..audio import array_of
from ..audio.features import FeatureExtractor
from ..audio.features.shared import pad
from ..errors import AudioError, GenerationError


def given_input(input_name: str, **given: ArrayLike | None) -> ArrayLike | None:
    """Return the input that was given; None if there is none.

    Args:
        input_name: Name of the encoder's input, `input_values` or `input_features`.
        given: The arguments that may have it: `inputs`, or one of the two names.

    Raises:
        GenerationError: There are two, or it has the name of another encoder's input.
    """
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise GenerationError(f"{' and '.join(names)} are both given; give one of them, such as {input_name}")
    if not names:
        return None
    if isinstance(given[names[0]], Mapping):
        raise GenerationError(f"{names[0]} is a dictionary, as a processor returns it; put ** before it")
    if names[0] not in ("inputs", input_name):
        raise GenerationError(
            f"{names[0]} is the input of other models, this one takes {input_name}; model.processor makes it of audio"
        )
    return given[names[0]]


def padded_rows(
    inputs: ArrayLike, attention_mask: ArrayLike | None, extractor: FeatureExtractor | None, name: str
) -> tuple[ArrayLike, ArrayLike | None]:
    """Pad a list of rows of several lengths to one array; anything else is returned as it is.

    The result is that of the feature extractor's method `pad` in transformers, with `padding=True`.

    Args:
        inputs: Rows of model input, floating-point [samples] or [time, features] each.
        attention_mask: Mask of each row, 1 where there is audio; None for ones.
        extractor: Feature extractor that made the rows. Without one, padding is 0 and masked.
        name: Name of the inputs in errors.

    Raises:
        AudioError: The rows differ in more than their length, or are not floating-point.
    """
    if not _has_lengths(inputs):
        return inputs, attention_mask
    rows = [_row(row, f"{name}[{position}]") for position, row in enumerate(inputs)]
    for position, row in enumerate(rows):
        if row.ndim == 0 or row.shape[1:] != rows[0].shape[1:] or row.ndim != rows[0].ndim:
            raise AudioError(
                f"{name}[{position}] has the shape {list(row.shape)}, and {name}[0] {list(rows[0].shape)}; rows may "
                "differ in their first dimension only"
            )
    values, mask = pad(rows, getattr(extractor, "padding_value", 0.0))
    if attention_mask is None:
        return values, mask if getattr(extractor, "return_attention_mask", True) else np.ones_like(mask)
    if _has_lengths(attention_mask):
        attention_mask, _ = pad([array_of(row, "attention_mask").astype(np.int64) for row in attention_mask], 0)
    return values, attention_mask


def _has_lengths(values: object) -> TypeGuard[Sequence[Any]]:
    """Return true for a list of rows of several lengths."""
    if not isinstance(values, list | tuple):
        return False
    return len({len(row) if hasattr(row, "__len__") else -1 for row in values}) > 1


def _row(values: object, name: str) -> NDArray[np.float32]:
    row = array_of(values, name)
    if row.dtype.kind != "f":
        raise AudioError(f"{name} must be floating-point, got {row.dtype}")
    return row.astype(np.float32)
