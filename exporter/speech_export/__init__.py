"""Export Hugging Face speech encoder-decoder models to ONNX.

>>> from speech_export import export
>>> bundle = export("checkpoint", "bundle")
"""

import logging
from typing import TYPE_CHECKING, Any

from .errors import ExportError, VerificationError

if TYPE_CHECKING:
    from .export_bundle import export

__all__ = ["ExportError", "VerificationError", "export"]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Import `export`, and torch with it, when it is first asked for: `speech-export --help` needs neither."""
    if name == "export":
        from .export_bundle import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
