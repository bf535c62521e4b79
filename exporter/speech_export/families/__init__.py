"""The model families that need special treatment, each of which registers itself when it is imported."""

from importlib import import_module
from pkgutil import iter_modules

from .registry import (
    DecoderFamily,
    EncoderFamily,
    check_not_refused,
    decoder_family,
    encoder_family,
    encoder_types,
    native_family,
    refusals,
)

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "DecoderFamily",
    "EncoderFamily",
    "check_not_refused",
    "decoder_family",
    "encoder_family",
    "encoder_types",
    "native_family",
    "refusals",
]
