"""Bundles below float32, made of a float32 one: any number of times, with different parts left as they are."""

import os
import shutil
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.manifest import MANIFEST, Manifest
from speech_runtime.bundle.safe_files import FileFacts

from ..passes.quantization import Part, matching
from ..tracing.tracer import save
from .options import PrecisionOptions


class Conversion(ABC):
    """A way below float32, for those graphs that the options want there.

    Attributes:
        parts: what can be left in float32.
        kept: names of the parts that the options leave there.
    """

    def __init__(self, float32: Path, manifest: Manifest, options: PrecisionOptions) -> None:
        """Look at what there is to convert.

        Args:
            float32: a directory with the traced graphs and all other files of a bundle.
            manifest: of the bundle to be; its files are filled in.
            options: what to convert, and how.

        Raises:
            ExportError: a pattern of parts to keep matches nothing.
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
            Names of all that is left in float32: `kept`, and what cannot be converted for the numbers in it.
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
            found = self._convert(model, graph, kept)
            if found is None:
                self._link(graph, directory)
                continue
            left |= found
            save(model, directory / f"{graph}.onnx")
        files = {path.name: FileFacts(path.stat().st_size, "") for path in directory.iterdir() if path.is_file()}
        files.pop(MANIFEST, None)
        replace(self._manifest, files=files).write(directory)
        return left

    @abstractmethod
    def opened(self, directory: Path) -> AbstractContextManager[OnnxSpeechSeq2Seq]:
        """The bundle of `write`, to measure: it says what it will say where it is to run."""

    @abstractmethod
    def _parts(self, model: ir.Model) -> list[Part]:
        """What there is to convert in a traced graph."""

    @abstractmethod
    def _convert(self, model: ir.Model, graph: str, kept: frozenset[str]) -> frozenset[str] | None:
        """Convert a traced graph in place.

        Returns:
            Names of what stays float32 besides `kept`; None where there is nothing left to convert.
        """

    def _link(self, graph: str, directory: Path) -> None:
        """The float32 files of a graph in another directory too, without a copy where the file system can."""
        for path in self._float32.glob(f"{graph}.onnx*"):
            try:
                os.link(path, directory / path.name)
            except OSError:
                shutil.copy2(path, directory)
