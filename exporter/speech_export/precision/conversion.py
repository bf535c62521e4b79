"""Conversions of a float32 bundle to a lower precision, repeatable with different parts left in float32."""

import logging
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import onnx_ir as ir

from speech_runtime import OnnxSpeechSeq2Seq, SessionOptions
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
from speech_runtime.bundle.manifest import MANIFEST, Manifest
from speech_runtime.bundle.safe_files import FileFacts

from ..errors import ExportError, shortened
from ..passes.half.float32_nodes import MOVES, float32_nodes, floats
from ..passes.half.kernels import half_kernels
from ..passes.pipeline import passes_to_explicit_int8, passes_to_fp16, passes_to_int8, run_passes
from ..passes.quantize.quantizable import Quantizable
from ..passes.tracer_metadata import module_of, packed_modules
from ..tracing.tracer import save
from .calibration import ModelInput
from .fp16_simulation import ROUNDED, write_rounded
from .options import PrecisionOptions
from .value_ranges import measured_ranges, nodes_out_of_range

logger = logging.getLogger(__name__)

_WORTHWHILE = 2**18
"""Number of weights below which quantisation saves nothing: all graphs fit into a processor's cache as they are."""
_UNOPTIMIZED = SessionOptions(graph_optimization="disabled")
"""ONNX Runtime's optimisations would fuse explicit int8 into its own int8 kernels, which may saturate on this CPU."""


@dataclass(frozen=True)
class Part:
    """A part of a graph that is converted, or left in float32, as a whole.

    Attributes:
        name: Name of its module.
        parameters: Number of weights in it that become smaller.
    """

    name: str
    parameters: int


class Conversion(ABC):
    """A conversion of the graphs that the options want below float32.

    Attributes:
        parts: Parts that can be left in float32.
        kept: Names of the parts that the options leave in float32.
    """

    def __init__(self, float32: Path, manifest: Manifest, options: PrecisionOptions) -> None:
        """Find the parts to convert.

        Args:
            float32: Directory with the float32 graphs and all other files of a bundle.
            manifest: Manifest of the bundle to write; its files are filled in.
            options: Precision of each graph, and the parts to keep in float32.

        Raises:
            ExportError: A pattern in `options.keep_float32` matches nothing.
        """
        self._float32 = float32
        self._manifest = manifest
        self._options = options
        self._graphs = tuple(graph for graph in GRAPHS if options.of(graph) != "fp32")
        self.parts = [part for graph in self._graphs for part in self._parts(ir.load(float32 / f"{graph}.onnx"))]
        self.kept = matching(options.keep_float32, {part.name for part in self.parts})

    def write(self, directory: Path, kept: frozenset[str]) -> frozenset[str]:
        """Write a whole bundle into `directory`, with the `kept` parts in float32.

        Returns:
            Names of all that stays float32: `kept`, and parts whose numbers are out of range.
        """
        for path in self._float32.iterdir():
            if path.is_file() and path.name.partition(".onnx")[0] not in GRAPHS:
                shutil.copy2(path, directory)
        left = kept
        for graph in GRAPHS:
            for path in directory.glob(f"{graph}.onnx*"):
                path.unlink()
            if graph not in self._graphs:
                self._link(graph, directory)
                continue
            model = ir.load(self._float32 / f"{graph}.onnx")
            unconvertible = self._convert(model, graph, kept)
            if unconvertible is None:
                self._link(graph, directory)
                continue
            left |= unconvertible
            save(model, directory / f"{graph}.onnx")
        files = {path.name: FileFacts(path.stat().st_size, "") for path in directory.iterdir() if path.is_file()}
        files.pop(MANIFEST, None)
        replace(self._manifest, files=files).write(directory)
        return left

    @contextmanager
    def opened(self, directory: Path) -> Iterator[OnnxSpeechSeq2Seq]:
        """Open the bundle that `write` made, so that on this CPU it returns the same as on its target."""
        yield OnnxSpeechSeq2Seq.from_pretrained(directory, check_hashes=False)

    @abstractmethod
    def _parts(self, model: ir.Model) -> list[Part]:
        """Return the parts of a traced graph that can be converted."""

    @abstractmethod
    def _convert(self, model: ir.Model, graph: str, kept: frozenset[str]) -> frozenset[str] | None:
        """Convert a traced graph in place.

        Returns:
            Names of what stays float32 besides `kept`; None if nothing is left to convert.
        """

    def _link(self, graph: str, directory: Path) -> None:
        """Put the float32 files of a graph into another directory, as hard links if the file system has them."""
        for path in self._float32.glob(f"{graph}.onnx*"):
            try:
                os.link(path, directory / path.name)
            except OSError:
                shutil.copy2(path, directory)


def conversion_for(
    float32: Path, manifest: Manifest, options: PrecisionOptions, calibration: Iterable[ModelInput]
) -> Conversion:
    """Return the conversion for `options`; see `Conversion` for the arguments and errors."""
    if options.halves:
        return HalfPrecision(float32, manifest, options, calibration)
    if options.quantises_explicitly:
        return ExplicitQuantizer(float32, manifest, options, calibration)
    return Quantizer(float32, manifest, options)


class Quantizer(Conversion):
    """The conversion to int8 and int4 for the CPU."""

    def __init__(self, float32: Path, manifest: Manifest, options: PrecisionOptions) -> None:
        """Find the parts to convert; see `Conversion`.

        Raises:
            ExportError: See `Conversion`; or there is nothing to quantise.
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

    def _found(self, model: ir.Model) -> Quantizable:
        return Quantizable.find(model.graph, self._options, self._manifest.decoder.vocabulary.count)

    def _parts(self, model: ir.Model) -> list[Part]:
        return [Part(name, parameters) for name, parameters in self._found(model).sizes()]

    def _convert(self, model: ir.Model, graph: str, kept: frozenset[str]) -> frozenset[str] | None:
        found = self._found(model).without(kept)
        if not found.sizes():
            return None
        words = self._manifest.decoder.vocabulary.count
        run_passes(model, passes_to_int8(found, self._options.of(graph), self._options, words))
        return frozenset()


class ExplicitQuantizer(Quantizer):
    """The conversion to int8 for TensorRT. Inputs and outputs of the graphs stay float32."""

    def __init__(
        self, float32: Path, manifest: Manifest, options: PrecisionOptions, calibration: Iterable[ModelInput]
    ) -> None:
        """Find the parts to convert, and measure the ranges of all tensors.

        Args:
            float32: Directory of the float32 bundle, see `Conversion`; the graphs are standard ONNX.
            manifest: Manifest of the bundle to write, see `Conversion`.
            options: Precision of each graph, see `Conversion`.
            calibration: Model input of the kind that the model is for.

        Raises:
            ExportError: See `Quantizer`; or there is nothing to measure on.
        """
        super().__init__(float32, manifest, options)
        ranges = measured_ranges(Bundle.open(float32, check_hashes=False), self._graphs, calibration)
        self._largest = {
            graph: {name: found.largest for name, found in of_graph.items()} for graph, of_graph in ranges.items()
        }

    @contextmanager
    def opened(self, directory: Path) -> Iterator[OnnxSpeechSeq2Seq]:
        """Open the bundle without ONNX Runtime's optimisations; see `Conversion.opened`."""
        yield OnnxSpeechSeq2Seq.from_pretrained(directory, options=_UNOPTIMIZED, check_hashes=False)

    def _convert(self, model: ir.Model, graph: str, kept: frozenset[str]) -> frozenset[str] | None:
        found, largest = self._found(model), self._largest[graph]
        if not found.without(kept).sizes():
            return None
        unscalable = found.without_scale(largest)
        run_passes(model, passes_to_explicit_int8(found.without(kept | unscalable), largest))
        return unscalable


class HalfPrecision(Conversion):
    """The conversion to fp16 for GPUs.

    Audio goes in as float32; logits and log-probabilities come out as float32. The states that go from graph to graph,
    encoder output and caches, are float16, unless half cannot hold them or their producer stays float32.
    """

    def __init__(
        self, float32: Path, manifest: Manifest, options: PrecisionOptions, calibration: Iterable[ModelInput]
    ) -> None:
        """Find the modules, and measure the ranges of all tensors.

        Args:
            float32: Directory of the float32 bundle, see `Conversion`; the graphs are those for `options.target`.
            manifest: Manifest of the bundle to write, see `Conversion`.
            options: Precision of each graph, see `Conversion`.
            calibration: Model input of the kind that the model is for.

        Raises:
            ExportError: There is nothing to measure on, or a pattern of parts to keep matches nothing.
        """
        self._kernels = half_kernels(options.target)
        super().__init__(float32, manifest, options)
        self._ranges = measured_ranges(Bundle.open(float32, check_hashes=False), self._graphs, calibration)
        self._producers: dict[str, set[str]] = {}
        for graph in self._graphs:
            self._producers |= _producers(ir.load(float32 / f"{graph}.onnx").graph)
        self._float32_interface = {manifest.encoder.input_name, LOGITS, TOP_LOGPROBS}
        for graph in set(GRAPHS).difference(self._graphs):
            layers, cache = manifest.decoder.layers, manifest.decoder.cache
            self._float32_interface.update(graph_inputs(graph, manifest.encoder.input_name, layers, cache))
            self._float32_interface.update(graph_outputs(graph, layers))

    @contextmanager
    def opened(self, directory: Path) -> Iterator[OnnxSpeechSeq2Seq]:
        """Open a copy that rounds as a GPU does, which ONNX Runtime's CPU does not."""
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            write_rounded(directory, Path(scratch, "rounded"))
            yield OnnxSpeechSeq2Seq.from_pretrained(Path(scratch, "rounded"), options=ROUNDED, check_hashes=False)

    def _parts(self, model: ir.Model) -> list[Part]:
        """Return every module, with the number of weights that half precision makes smaller."""
        single = float32_nodes(model.graph, kernels=self._kernels)
        sizes: Counter[str] = Counter()
        for node in model.graph:
            if not floats(node.outputs):
                continue
            weights = [value.const_value for value in floats(node.inputs) if value.is_initializer()]
            # A single number is a constant of the arithmetic, not a weight.
            sizes[module_of(node)] += sum(
                each.size for each in weights if each and each.size > 1 and node not in single
            )
        return [Part(name, size) for name, size in sizes.items()]

    def _convert(self, model: ir.Model, graph: str, kept: frozenset[str]) -> frozenset[str]:
        states = self._float32_states(kept)
        interface = self._float32_interface | states
        names = {str(node.name) for node in model.graph if module_of(node) in kept}
        single = float32_nodes(model.graph, names, interface, self._kernels)
        found = nodes_out_of_range(model.graph, self._ranges[graph], single)
        for node in found:
            logger.info("%s stays float32 in %s", node, graph)
        out_of_range = {node.node for node in found}
        run_passes(model, passes_to_fp16(names | out_of_range, interface, self._kernels))
        return frozenset(out_of_range | states)

    def _float32_states(self, kept: frozenset[str]) -> set[str]:
        """Return the encoder output and caches that half cannot hold, or whose producer is kept in float32."""
        layers = self._manifest.decoder.layers
        together = [{ENCODER_HIDDEN_STATES}, *({name} for name in cache_names("cross", layers))]
        # A cache has the same dtype before and after a step.
        together += map(set, zip(cache_names("past", layers), cache_names("present", layers), strict=True))
        seen = [(name, found) for graph in self._ranges.values() for name, found in graph.items()]
        wanted = {name for name, found in seen if found.overflows or found.underflows}
        wanted |= {name for name, modules in self._producers.items() if modules & kept}
        return set().union(*(names for names in together if names & wanted))


def matching(patterns: Collection[str], names: Collection[str]) -> frozenset[str]:
    """Return the `names` that match any of `patterns`, or stand for a module that does.

    Raises:
        ExportError: A pattern matches nothing.
    """
    known = {name: {name, *packed_modules(name)} for name in names}
    found = {
        pattern: [name for name in names if any(fnmatchcase(each, pattern) for each in known[name])]
        for pattern in patterns
    }
    for pattern, matched in found.items():
        if not matched:
            raise ExportError(
                f"--keep-float32 {pattern!r} matches nothing that is converted; there are {shortened(sorted(names), 8)}"
            )
    return frozenset(name for matched in found.values() for name in matched)


def _producers(graph: ir.Graph) -> dict[str, set[str]]:
    """Return for each output of a graph the modules that computed its numbers, before any operators that only copy."""
    producers: dict[ir.Value, set[str]] = {}
    for node in graph:
        copied = set().union(*(producers.get(value, ()) for value in floats(node.inputs)))
        made = copied if node.op_type in MOVES else {module_of(node)}
        producers |= dict.fromkeys(floats(node.outputs), made)
    return {str(value.name): producers.get(value, set()) for value in graph.outputs}
