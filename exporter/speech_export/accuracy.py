"""The accuracy gate: quantise, measure, and leave in float32 what hurts, until the tokens agree or it is refused."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.bundle import MANIFEST, FileFacts, Manifest
from speech_runtime.contract import GRAPHS

from .errors import ExportError, VerificationError
from .expectation import Expectation
from .precision import PrecisionOptions
from .quantization import Part, matching, parts, quantize
from .sensitivity import Layer, layers, most_harmful_first
from .settings import Limits
from .trace import save
from .verify import Comparison, compare

logger = logging.getLogger(__name__)

_MOST_KEPT = 0.5
"""Of the weights: a bundle with more of them in float32 is hardly smaller or faster."""
_WORTHWHILE = 2**18
"""Weights: below that all graphs together fit into a processor's cache as they are."""
_SEARCHES = 4
"""Of those that the whole bundle is measured on, so many say how much a layer hurts."""


@dataclass(frozen=True)
class Quantized:
    """A quantised bundle, and what it was measured to be."""

    kept_float32: tuple[str, ...]
    result: Comparison


class Quantizer:
    """Quantises the float32 graphs in one directory into another, any number of times."""

    def __init__(self, float32: Path, manifest: Manifest, options: PrecisionOptions) -> None:
        """Look at what there is to quantise.

        Args:
            float32: a directory with the traced graphs and all other files of a bundle.
            manifest: of the bundle to be; its files are filled in.
            options: what to quantise.

        Raises:
            ExportError: there is nothing to quantise, or a pattern matches nothing.
        """
        self._float32 = float32
        self._manifest = manifest
        self._options = options
        self.parts: list[Part] = []
        for graph in GRAPHS:
            if options.of(graph) != "fp32":
                self.parts += parts(ir.load(float32 / f"{graph}.onnx"), options, manifest.decoder.vocab_size)
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
        self.kept = matching(options.keep_float32, {part.name for part in self.parts})

    def write(self, directory: Path, kept: frozenset[str]) -> None:
        """Write a whole bundle into `directory`, with the `kept` parts in float32."""
        for path in self._float32.iterdir():
            if path.is_file() and not _is_graph(path):
                shutil.copy2(path, directory)
        for graph in GRAPHS:
            for path in directory.glob(f"{graph}.onnx*"):
                path.unlink()
            model = ir.load(self._float32 / f"{graph}.onnx")
            names = {part.name for part in parts(model, self._options, self._manifest.decoder.vocab_size)}
            if self._options.of(graph) == "fp32" or names <= kept:
                _link(self._float32, graph, directory)
                continue
            quantize(model, graph, self._options, self._manifest.decoder.vocab_size, kept)
            save(model, directory / f"{graph}.onnx")
        files = {path.name: FileFacts(path.stat().st_size, "") for path in directory.iterdir() if path.is_file()}
        files.pop(MANIFEST, None)
        replace(self._manifest, files=files).write(directory)

    def drift_of(self, layer: Layer, expected: Sequence[Expectation]) -> float:
        """Mean difference of log-probabilities when nothing but `layer` is quantised."""
        others = frozenset(part.name for part in self.parts) - layer.names
        with tempfile.TemporaryDirectory(dir=self._float32) as scratch:
            self.write(Path(scratch), others)
            exported = OnnxSpeechSeq2Seq.from_pretrained(scratch, check_hashes=False)
            return compare(expected[:_SEARCHES], exported, search=False).drift


def quantize_accurately(
    quantizer: Quantizer,
    directory: Path,
    expected: Sequence[Expectation],
    limits: Limits,
    on_stage: Callable[[str], None],
) -> Quantized:
    """Quantise into `directory`, with as little in float32 as `limits.agreement` asks for.

    Raises:
        VerificationError: it would take more than half of the weights.
    """

    def attempt(kept: frozenset[str]) -> Comparison:
        quantizer.write(directory, kept)
        return compare(expected, OnnxSpeechSeq2Seq.from_pretrained(directory, check_hashes=False))

    kept = quantizer.kept
    result = attempt(kept)
    if result.agreement >= limits.agreement:
        return Quantized(tuple(sorted(kept)), result)
    on_stage(f"{result.agreement:.2%} of the tokens agree: looking for the layers that hurt")
    candidates = layers([part for part in quantizer.parts if part.name not in kept])
    ranking = most_harmful_first(candidates, lambda layer: quantizer.drift_of(layer, expected))
    most = _MOST_KEPT * sum(part.parameters for part in quantizer.parts)
    count = 1
    while True:
        harmful = ranking[:count]
        chosen = kept.union(*(layer.names for layer in harmful))
        if sum(part.parameters for part in quantizer.parts if part.name in chosen) > most or count > len(ranking):
            tried = ", ".join(layer.name for layer in ranking[: count // 2]) or "nothing"
            raise VerificationError(
                f"only {result.agreement:.2%} of the tokens are the same, the limit is {limits.agreement:.2%} "
                f"(--min-agreement), with {tried} in float32, and more would be over half of the weights; export with "
                "--precision fp32"
            )
        result = attempt(chosen)
        logger.info("with %s in float32: %.2f %%", ", ".join(layer.name for layer in harmful), 100 * result.agreement)
        if result.agreement >= limits.agreement:
            return Quantized(tuple(sorted(chosen)), result)
        count *= 2


def _is_graph(path: Path) -> bool:
    return path.name.partition(".onnx")[0] in GRAPHS


def _link(source: Path, graph: str, directory: Path) -> None:
    """The files of a graph in another directory too, without a copy where the file system can."""
    for path in source.glob(f"{graph}.onnx*"):
        try:
            os.link(path, directory / path.name)
        except OSError:
            shutil.copy2(path, directory)
