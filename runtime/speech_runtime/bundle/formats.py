"""Format versions of bundles: which ones this release reads, and how an older manifest is converted in memory.

A release reads its own format N and the one before it, N - 1. Everything else is refused with the remedy.
"""

import logging
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from operator import mul
from pathlib import Path
from typing import Any, Literal

from ..dataclass_json import FieldError, from_json, shown
from ..errors import BundleError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
"""Format that this release writes."""
_SOURCE = re.compile(r"[\w./~-]{1,200}")
_MOST_CONVOLUTIONS = 100

Content = Mapping[str, Any]
"""Parsed JSON of a manifest."""


def in_current_format(content: object, path: Path) -> object:
    """Return the content of a manifest in this release's format; that of format N - 1 is converted.

    Args:
        content: Parsed JSON of the manifest.
        path: File that it was read from, for messages.

    Raises:
        BundleError: The format is neither this release's nor the one before it.
        FieldError: A field that the conversion needs is missing or wrong.
    """
    version = content.get("format_version") if isinstance(content, dict) else None
    if version == FORMAT_VERSION and type(version) is int:
        return content
    if not isinstance(content, dict) or type(version) is not int or version not in _CONVERTERS:
        raise BundleError(_refusal(content if isinstance(content, dict) else {}, version, path))
    converted = {**_CONVERTERS[version](content), "format_version": FORMAT_VERSION}
    logger.warning(
        "%s has format %s and was converted in memory to format %s. Later releases will refuse it; export it again: %s",
        *(path, version, FORMAT_VERSION, _export_command(content, path)),
    )
    return converted


def _refusal(content: Content, version: object, path: Path) -> str:
    formats = " and ".join(str(number) for number in (*_CONVERTERS, FORMAT_VERSION))
    stated = f"{path} has format version {shown(version)}, this release reads {formats}"
    command = _export_command(content, path)
    if type(version) is int and version > FORMAT_VERSION:
        return f"{stated}; upgrade with: pip install --upgrade speech-export, or export the model again with: {command}"
    return f"{stated}; export the model again with: {command}"


def _export_command(content: Content, path: Path) -> str:
    """Return the command that makes the bundle again, with MODEL where the manifest does not name its checkpoint."""
    source = content.get("source")
    model = source if isinstance(source, str) and _SOURCE.fullmatch(source) else "MODEL"
    flags = [
        f"--{name} {value}"
        for name in ("precision", "target")
        if (value := content.get(name)) in ("fp16", "int8", "int4", "cuda", "tensorrt")
    ]
    return " ".join(["speech-export", model, "-o", shlex.quote(str(path.parent)), "--overwrite", *flags])


@dataclass(frozen=True)
class _EncoderFacts1:
    """Facts of the encoder in format 1: always a waveform encoder that begins with convolutions."""

    input_name: Literal["input_values", "input_features"]
    heads: int
    conv_kernel: tuple[int, ...]
    conv_stride: tuple[int, ...]


def _from_1(content: Content) -> Content:
    """Convert a manifest of format 1. The graphs' inputs and outputs are the same in both formats.

    Format 1 does not state whether padding is neutral, so clips of different lengths are encoded one by one.
    """
    encoder, decoder = from_json(_EncoderFacts1, content.get("encoder"), "encoder"), content.get("decoder")
    kernels, strides = encoder.conv_kernel, encoder.conv_stride
    if len(kernels) != len(strides) or len(kernels) > _MOST_CONVOLUTIONS:
        sizes = f"{len(kernels):,} and {len(strides):,} numbers"
        raise FieldError([f"encoder.conv_kernel and encoder.conv_stride have {sizes}, expected as many of each"])
    jumps = [1, *accumulate(strides, mul)]
    return {
        **content,
        "encoder": {
            "input_name": encoder.input_name,
            "feature_size": None,
            "heads": encoder.heads,
            "min_length": 1 + sum((kernel - 1) * jump for kernel, jump in zip(kernels, jumps, strict=False)),
            "max_length": None,
            "stride": prod(strides),
            "padding_neutral": False,
        },
        "decoder": {**decoder, "max_tokens": None} if isinstance(decoder, dict) else decoder,
    }


_CONVERTERS: Mapping[int, Callable[[Content], Content]] = {1: _from_1}
"""Converters from format N - 1 to N, by N - 1. A new format replaces the entry."""
