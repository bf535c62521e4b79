"""Export Hugging Face speech encoder-decoder models to ONNX.

Examples:
    >>> from speech_export import export
    >>> bundle = export("checkpoint", "bundle")
"""

import logging
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import speech_runtime  # noqa: F401 - turns telemetry off before onnxruntime is imported

if TYPE_CHECKING:
    from .errors import ExportError, VerificationError
    from .export_bundle import export
    from .limits import Limits
    from .precision.options import PrecisionOptions
    from .sources.checkpoint import load_checkpoint
    from .sources.composite import Composite
    from .sources.configs import load_configs
    from .sources.hub import HubOptions
    from .sources.pair import load_pair
    from .tensorrt.add_engines import add_engines
    from .tensorrt.build import BuildOptions

    __version__: str

_MODULES = {
    "BuildOptions": "tensorrt.build",
    "Composite": "sources.composite",
    "ExportError": "errors",
    "HubOptions": "sources.hub",
    "Limits": "limits",
    "PrecisionOptions": "precision.options",
    "VerificationError": "errors",
    "add_engines": "tensorrt.add_engines",
    "export": "export_bundle",
    "load_checkpoint": "sources.checkpoint",
    "load_configs": "sources.configs",
    "load_pair": "sources.pair",
}
"""Module of each public name."""

__all__ = [
    "BuildOptions",
    "Composite",
    "ExportError",
    "HubOptions",
    "Limits",
    "PrecisionOptions",
    "VerificationError",
    "__version__",
    "add_engines",
    "export",
    "load_checkpoint",
    "load_configs",
    "load_pair",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `speech-export --help` needs neither torch nor transformers."""
    if name == "__version__":
        return version("speech-export")
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
