"""Format versions of bundles: which ones this release reads, and how an older manifest is converted in memory.

A release reads its own format N and the one before it, N - 1. Everything else is refused with the remedy.
"""

import logging
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..dataclass_json import shown
from ..errors import BundleError
from ..install_hints import source

logger = logging.getLogger(__name__)

FORMAT_VERSION = 3
"""Format that this release writes."""
_SOURCE = re.compile(r"[\w./~-]{1,200}")

Content = Mapping[str, Any]
"""Parsed JSON of a manifest."""


def in_current_format(content: object, path: Path) -> object:
    """Return the content of a manifest in this release's format; that of format N - 1 is converted.

    Args:
        content: Parsed JSON of the manifest.
        path: File that it was read from, for messages.

    Raises:
        BundleError: The format is neither this release's nor the one before it.
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
        upgrade = f"pip install --upgrade {shlex.quote(source())}"
        return f"{stated}; upgrade with: {upgrade}, or export the model again with: {command}"
    return f"{stated}; export the model again with: {command}"


def _export_command(content: Content, path: Path) -> str:
    """Return the command that makes the bundle again, with MODEL where the manifest does not name its checkpoint."""
    checkpoint = content.get("source")
    model = checkpoint if isinstance(checkpoint, str) and _SOURCE.fullmatch(checkpoint) else "MODEL"
    flags = [
        f"--{name} {value}"
        for name in ("precision", "target")
        if (value := content.get(name)) in ("fp16", "int8", "int4", "cuda", "tensorrt")
    ]
    return " ".join(["speech-export", model, "-o", shlex.quote(str(path.parent)), "--overwrite", *flags])


def _from_2(content: Content) -> Content:
    """Convert a manifest of format 2, which has all fields of format 3: only one kind of cache is new in it."""
    return content


_CONVERTERS: Mapping[int, Callable[[Content], Content]] = {2: _from_2}
"""Converters from format N - 1 to N, by N - 1. A new format replaces the entry."""
