"""fp16 for GPUs: a float32 bundle, measured on audio, to half precision, and float32 where that does not fit."""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.bundle.graph_io import (
    ENCODER_HIDDEN_STATES,
    GRAPHS,
    LOGITS,
    TOP_LOGPROBS,
    cache_names,
    graph_inputs,
    graph_outputs,
)
from speech_runtime.bundle.loading import Bundle
from speech_runtime.bundle.manifest import Manifest

from ..passes.half.convert import to_half
from ..passes.half.float32_nodes import MOVES, float32_nodes, floats
from ..passes.module_names import module_of
from ..passes.quantization import Part
from .calibration import ModelInput
from .conversion import Conversion
from .fp16_simulation import ROUNDED, write_rounded
from .options import PrecisionOptions
from .out_of_range import nodes_out_of_range
from .value_ranges import measured_ranges

logger = logging.getLogger(__name__)


class HalfPrecision(Conversion):
    """See `Conversion`.

    Audio goes in as float32; logits and log-probabilities come out as float32. The states that go from graph to graph,
    encoder output and caches, are float16, unless that does not hold them, or what makes them is float32.
    """

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
            ExportError: there is nothing to measure on, or a pattern of parts to keep matches nothing.
        """
        super().__init__(float32, manifest, options)
        self._ranges = measured_ranges(Bundle.open(float32, check_hashes=False), self._graphs, calibration)
        self._makers: dict[str, set[str]] = {}
        for graph in self._graphs:
            self._makers |= _makers(ir.load(float32 / f"{graph}.onnx").graph)
        self._float32_interface = {manifest.encoder.input_name, LOGITS, TOP_LOGPROBS}
        for graph in set(GRAPHS).difference(self._graphs):
            layers, cache = manifest.decoder.layers, manifest.decoder.cache
            self._float32_interface.update(graph_inputs(graph, manifest.encoder.input_name, layers, cache))
            self._float32_interface.update(graph_outputs(graph, layers))

    @contextmanager
    def opened(self, directory: Path) -> Iterator[OnnxSpeechSeq2Seq]:
        """See `Conversion.opened`: ONNX Runtime's CPU would compute in float32 what a GPU computes in half."""
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            write_rounded(directory, Path(scratch, "rounded"))
            yield OnnxSpeechSeq2Seq.from_pretrained(Path(scratch, "rounded"), options=ROUNDED, check_hashes=False)

    def _parts(self, model: ir.Model) -> list[Part]:
        """Every module; its parameters are those that half precision makes smaller."""
        single = float32_nodes(model.graph)
        sizes: Counter[str] = Counter()
        for node in model.graph:
            if not floats(node.outputs):
                continue
            weights = [value.const_value for value in floats(node.inputs) if value.is_initializer()]
            # One number is no weight but a part of the arithmetic.
            sizes[module_of(node)] += sum(
                each.size for each in weights if each and each.size > 1 and node not in single
            )
        return [Part(name, "module", size) for name, size in sizes.items()]

    def _convert(self, model: ir.Model, graph: str, kept: frozenset[str]) -> frozenset[str]:
        states = self._float32_states(kept)
        interface = self._float32_interface | states
        names = {str(node.name) for node in model.graph if module_of(node) in kept}
        found = nodes_out_of_range(model.graph, self._ranges[graph], float32_nodes(model.graph, names, interface))
        for node in found:
            logger.info("%s stays float32 in %s", node, graph)
        out_of_range = {node.node for node in found}
        to_half(model, names | out_of_range, interface)
        return frozenset(out_of_range | states)

    def _float32_states(self, kept: frozenset[str]) -> set[str]:
        """Encoder output and caches that half does not hold, or that come out of what is kept in float32."""
        layers = self._manifest.decoder.layers
        together = [{ENCODER_HIDDEN_STATES}, *({name} for name in cache_names("cross", layers))]
        # A cache is the same before and after a step.
        together += map(set, zip(cache_names("past", layers), cache_names("present", layers), strict=True))
        seen = [(name, found) for graph in self._ranges.values() for name, found in graph.items()]
        wanted = {name for name, found in seen if found.overflows or found.underflows}
        wanted |= {name for name, modules in self._makers.items() if modules & kept}
        return set().union(*(names for names in together if names & wanted))


def _makers(graph: ir.Graph) -> dict[str, set[str]]:
    """For each output of a graph, the modules whose numbers it is, whatever moved them around since."""
    makers: dict[ir.Value, set[str]] = {}
    for node in graph:
        copied = set().union(*(makers.get(value, ()) for value in floats(node.inputs)))
        made = copied if node.op_type in MOVES else {module_of(node)}
        makers |= dict.fromkeys(floats(node.outputs), made)
    return {str(value.name): makers.get(value, set()) for value in graph.outputs}
