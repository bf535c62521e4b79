"""The bundles that tests/gpu and `make bench-gpu` need: what they are exported from, and how they come to a GPU.

`make gpu-bundles` exports them beforehand, where there is no GPU, to archives in `build/gpu-bundles`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import SpeechEncoderDecoderModel

from composites import composite
from convolutions import REAL
from matrix import DECODER_ROWS, ENCODER_ROWS, Pairing
from prepare import reference_shape
from real_shapes import PAIRS, one_layer, real_shape
from speech_export.precision.options import PrecisionOptions

REPOSITORY = Path(__file__).resolve().parents[2]
ARCHIVES = REPOSITORY / "build" / "gpu-bundles"
_DIGITS = REPOSITORY / "examples" / "digits"

CUDA = PrecisionOptions(target="cuda")
CUDA_HALF = PrecisionOptions(precision="fp16", target="cuda")
TENSORRT = PrecisionOptions(target="tensorrt")
TENSORRT_HALF = PrecisionOptions(precision="fp16", target="tensorrt")
STATIC_TOKENS = 48  # RoBERTa's tiny models have 60 positions


@dataclass(frozen=True)
class Case:
    """A bundle.

    Attributes:
        name: Name, unique among all cases.
        model: Returns the model to export.
        settings: Other arguments of `speech_export.export`.
        keep_weights: If true, the archive has all weights; otherwise large ones are made up, see `weightless`.
        quick: If true, it is exported in seconds, so that a test may do so itself.
    """

    name: str
    model: Callable[[], SpeechEncoderDecoderModel | Path]
    settings: dict[str, Any] = field(default_factory=dict)
    keep_weights: bool = False
    quick: bool = True

    @property
    def archive(self) -> Path:
        """File that `make gpu-bundles` writes the bundle to."""
        return ARCHIVES / f"{re.sub(r'[^a-z0-9.]+', '-', self.name.lower())}.tar.xz"

    @property
    def is_half(self) -> bool:
        """True if the bundle is in half precision."""
        return bool(self.settings["precision"].precision == "fp16")


def _digits(name: str, precision: PrecisionOptions, **settings: Any) -> Case:
    if precision.precision == "fp16":
        settings["calibration_audio"] = _DIGITS / "audio"
    settings = {"precision": precision, **settings}
    return Case(f"digits, {name}", lambda: _DIGITS / "checkpoint", settings, keep_weights=True)


DIGITS = {
    case.name: case
    for case in (
        _digits("cuda", CUDA),
        _digits("cuda, half", CUDA_HALF),
        _digits("tensorrt", TENSORRT),
        _digits("tensorrt, half", TENSORRT_HALF),
        _digits("tensorrt, static", TENSORRT, static_cache=STATIC_TOKENS),
    )
}
"""The bundled model."""

GROWS_ALWAYS = {"prophetnet"}
"""Decoders that have a growing cache only."""


def _family(row: Pairing) -> list[Case]:
    model = partial(composite, row.decoder, row.encoder)
    variants: dict[str, dict[str, Any]] = {"float32": {"precision": CUDA}, "half": {"precision": CUDA_HALF}}
    if row in DECODER_ROWS and row.decoder not in GROWS_ALWAYS:
        variants["growing"] = {"precision": CUDA, "growing_cache": True}
        variants["static"] = {"precision": TENSORRT, "static_cache": STATIC_TOKENS}
    return [Case(f"{row.name}, {variant}", model, settings) for variant, settings in variants.items()]


FAMILIES = [case for row in (*ENCODER_ROWS, *DECODER_ROWS) for case in _family(row)]
"""Every row of docs/support.md, with each kind of cache."""

SHAPES = [
    Case(f"{encoder} + {decoder}, {name}", partial(real_shape, encoder, decoder), {"precision": precision}, quick=False)
    for encoder, decoder in PAIRS
    for name, precision in (("float32", CUDA), ("half", CUDA_HALF))
]
"""What users have, at its real width with few layers."""

LAYERS = [
    Case(f"one layer of {encoder}, half", partial(one_layer, encoder), {"precision": CUDA_HALF}, quick=False)
    for encoder in REAL
]
"""One layer of every encoder at its real width, in half precision: cuDNN refuses convolutions by their sizes."""

REFERENCE = Case("reference shape, half", reference_shape, {"precision": CUDA_HALF}, quick=False)
"""What `make bench-gpu` measures."""

CASES = [*DIGITS.values(), *FAMILIES, *LAYERS, *SHAPES, REFERENCE]
