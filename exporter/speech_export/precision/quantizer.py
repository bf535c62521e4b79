"""int8 and int4 for the CPU: float32 bundles to quantised ones."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.bundle.manifest import Manifest

from ..errors import ExportError
from ..passes.quantization import Part, parts, quantize
from .conversion import Conversion
from .options import PrecisionOptions

logger = logging.getLogger(__name__)

_WORTHWHILE = 2**18
"""Weights: below that all graphs together fit into a processor's cache as they are."""


class Quantizer(Conversion):
    """See `Conversion`."""

    def __init__(self, float32: Path, manifest: Manifest, options: PrecisionOptions) -> None:
        """See `Conversion`.

        Raises:
            ExportError: there is nothing to quantise too.
        """
        super().__init__(float32, manifest, options)
        if not self.parts:
            raise ExportError(
                f"the model has nothing that {options.precision} applies to ({', '.join(options.op_kinds)} with "
                "constant weights); export it with --precision fp32"
            )
        weights = sum(part.parameters for part in self.parts)
        if weights < _WORTHWHILE:
            logger.warning(
                "The model has only %d weights that %s applies to: it will be hardly smaller and no faster than with "
                "--precision fp32.",
                weights,
                options.precision,
            )

    @contextmanager
    def opened(self, directory: Path) -> Iterator[OnnxSpeechSeq2Seq]:
        """See `Conversion.opened`."""
        yield OnnxSpeechSeq2Seq.from_pretrained(directory, check_hashes=False)

    def _parts(self, model: ir.Model) -> list[Part]:
        return parts(model, self._options, self._manifest.decoder.vocab_size)

    def _convert(self, model: ir.Model, graph: str, kept: frozenset[str]) -> frozenset[str] | None:
        if {part.name for part in self._parts(model)} <= kept:
            return None
        quantize(model, graph, self._options, self._manifest.decoder.vocab_size, kept)
        return frozenset()
