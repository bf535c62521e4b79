"""Compare a composite in half precision with float32, computed as on a GPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from matrix import clip_lengths, padded_batch
from speech_export.passes.half.kernels import CONTRIB
from speech_export.precision.calibration import ModelInput, record
from speech_export.precision.conversion import HalfPrecision
from speech_export.precision.fp16_simulation import ROUNDED, write_rounded
from speech_export.precision.options import PrecisionOptions
from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.loading import Bundle
from speech_runtime.generation.config import GenerationSettings
from speech_runtime.generation.token_scores.maths import log_softmax
from token_agreement import token_agreement

SEARCHES: tuple[GenerationSettings, ...] = (
    {"num_beams": 1, "num_return_sequences": 1, "max_new_tokens": 24},
    {"num_beams": 4, "num_return_sequences": 1, "max_new_tokens": 24},
)


class GatherElements(OpRun):  # type: ignore[misc]  # the package has no types
    """GatherElements of any width; that of ONNX is limited to 32 columns."""

    def _run(self, data: Any, indices: Any, axis: int | None = None) -> tuple[Any]:
        return (np.take_along_axis(data, indices, axis),)


class SkipLayerNormalization(OpRun):  # type: ignore[misc]
    """ONNX Runtime's operator as its CUDA kernel computes it: sums in the type of the tensors, the norm in float32."""

    op_domain = CONTRIB

    def _run(
        self, given: Any, skip: Any, scale: Any, shift: Any = None, bias: Any = None, epsilon: float | None = None
    ) -> tuple[Any, ...]:
        total = (given if bias is None else given + bias) + skip
        wide = total.astype(np.float32)
        centered = wide - wide.mean(axis=-1, keepdims=True)
        normed = centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + np.float32(epsilon or 0)) * scale
        normed = normed if shift is None else normed + shift
        unused = np.zeros(0, dtype=np.float32)
        return (normed.astype(given.dtype), unused, unused, total)[: len(self.onnx_node.output)]


@dataclass(frozen=True)
class Halved:
    """A float32 bundle, its half-precision twin, and that one with everything rounded explicitly.

    `kept` names what is float32 in the twin for its numbers.
    """

    float32: Path
    half: Path
    rounded: Path
    kept: frozenset[str]


@dataclass(frozen=True)
class Drift:
    """The distance of half precision from float32.

    Attributes:
        next_tokens: Share of positions, along the float32 searches, with the same best next token.
        searches: Share of equal tokens of free searches.
        mean: Mean difference of log-probabilities along the float32 searches, over the whole vocabulary.
        p99: 99th percentile of these differences.
        largest: Largest of these differences.
    """

    next_tokens: float
    searches: float
    mean: float
    p99: float
    largest: float


FP16 = PrecisionOptions(precision="fp16", target="cuda")
FP16_FOR_TENSORRT = PrecisionOptions(precision="fp16", target="tensorrt")


def make(float32: Path, directory: Path, options: PrecisionOptions = FP16) -> Halved:
    """Convert a bundle with the target of `options` to half precision, measured on noise."""
    half, rounded = directory / "half", directory / "rounded"
    half.mkdir()
    conversion = HalfPrecision(float32, Bundle.open(float32).manifest, options, [noise(float32)])
    kept = conversion.write(half, conversion.kept)
    write_rounded(half, rounded)
    return Halved(float32, half, rounded, kept)


def noise(bundle: Path) -> ModelInput:
    """Return a padded batch of three clips of noise for the encoder of a bundle."""
    facts = Bundle.open(bundle).manifest.encoder
    return padded_batch(facts, clip_lengths(facts))


def drift(halved: Halved, batches: list[ModelInput]) -> Drift:
    """Compare half precision with float32 on `batches`."""
    float32 = OnnxSpeechSeq2Seq.from_pretrained(halved.float32)
    half = OnnxSpeechSeq2Seq.from_pretrained(halved.rounded, options=ROUNDED)
    differences, equal, searches = [], [], []
    for inputs, mask in batches:
        encoded, halved_encoding = float32.encode(inputs, mask), half.encode(inputs, mask)
        for search in SEARCHES:
            tokens = float32.generate(encoder_outputs=encoded, **search)
            found = half.generate(encoder_outputs=halved_encoding, **search)
            searches.append(token_agreement(tokens, found))
            expected, logprobs = (
                log_softmax(model.forward(encoder_outputs=output, decoder_input_ids=tokens).logits)
                for model, output in ((float32, encoded), (half, halved_encoding))
            )
            spoken = _spoken(tokens, float32.generation_config.eos_token_ids)
            differences.append(np.abs(expected - logprobs)[spoken].ravel())
            equal.append((expected.argmax(-1) == logprobs.argmax(-1))[spoken])
    together = np.concatenate(differences)
    return Drift(
        next_tokens=float(np.concatenate(equal).mean()),
        searches=float(np.mean(searches)),
        mean=float(together.mean()),
        p99=float(np.quantile(together, 0.99)),
        largest=float(together.max()),
    )


def from_definition(halved: Halved) -> float:
    """Return the largest difference between ONNX's reference evaluator and the rounded graphs.

    It is relative to the largest value of an output if that is above 1.
    """
    (feeds,) = record(Bundle.open(halved.half, check_hashes=False), [noise(halved.float32)])
    largest = 0.0
    for graph in GRAPHS:
        model = onnx.load(halved.half / f"{graph}.onnx")
        evaluator = ReferenceEvaluator(model, new_ops=[GatherElements, SkipLayerNormalization])
        outputs = [output.name for output in model.graph.output]
        session = _session(halved.rounded / f"{graph}.onnx")
        for feed in feeds[graph]:
            for found, expected in zip(evaluator.run(outputs, feed), session.run(outputs, feed), strict=True):
                if found.dtype.kind == "f" and found.size:
                    difference = np.abs(found.astype(np.float32) - expected).max()
                    largest = max(largest, float(difference / max(1, np.abs(expected).max())))
    return largest


def _spoken(tokens: NDArray[np.int64], ends: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the mask of positions before the end of each sequence."""
    ended = np.isin(tokens, ends)
    ended[:, 0] = False
    return np.asarray(np.cumsum(ended, axis=1) == 0)


def _session(path: Path) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
