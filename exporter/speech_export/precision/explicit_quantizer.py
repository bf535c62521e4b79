"""int8 for TensorRT: a float32 bundle, measured on audio, to one that says which numbers are bytes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from speech_runtime import OnnxSpeechSeq2Seq, SessionOptions
from speech_runtime.bundle.loading import Bundle
from speech_runtime.bundle.manifest import Manifest

from ..passes.quantization import quantize_explicitly
from .calibration import ModelInput
from .options import PrecisionOptions
from .quantizer import Quantizer
from .value_ranges import measured_ranges

_BY_THE_BOOK = SessionOptions(graph_optimization="disabled")
"""ONNX Runtime's optimisations would make products of bytes for this processor, as exact as it has them."""


class ExplicitQuantizer(Quantizer):
    """See `Conversion`. The interface of the graphs stays float32."""

    def __init__(
        self, float32: Path, manifest: Manifest, options: PrecisionOptions, calibration: Iterable[ModelInput]
    ) -> None:
        """Look at what there is, and measure it.

        Args:
            float32: see `Conversion`; the graphs are standard ONNX.
            manifest: see `Conversion`.
            options: see `Conversion`.
            calibration: model input like what the model is for.

        Raises:
            ExportError: see `Quantizer`; or there is nothing to measure on.
        """
        super().__init__(float32, manifest, options)
        ranges = measured_ranges(Bundle.open(float32, check_hashes=False), self._graphs, calibration)
        self._largest = {
            graph: {name: found.largest for name, found in of_graph.items()} for graph, of_graph in ranges.items()
        }

    @contextmanager
    def opened(self, directory: Path) -> Iterator[OnnxSpeechSeq2Seq]:
        """See `Conversion.opened`."""
        yield OnnxSpeechSeq2Seq.from_pretrained(directory, options=_BY_THE_BOOK, check_hashes=False)

    def _convert(self, model: ir.Model, graph: str, kept: frozenset[str]) -> frozenset[str] | None:
        if {part.name for part in self._parts(model)} <= kept:
            return None
        return quantize_explicitly(model, self._options, self._manifest.decoder.vocab_size, self._largest[graph], kept)
