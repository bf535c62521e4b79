"""Export, compare and build every encoder with one decoder, and every decoder with one encoder.

The models are those of `composites`: tiny, with random weights.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from composites import DECODERS, ENCODERS, composite
from native_models import NATIVE, native
from speech_export import export
from speech_export.precision.options import PrecisionOptions
from speech_export.sources.native import joined_halves
from speech_export.tensorrt.build import build_engine
from speech_export.tracing.facts import decoder_facts, encoder_facts
from speech_export.tracing.rewrites.rewritten import rewritten_for_tracing
from speech_export.tracing.tracer import save, trace, traceables
from speech_export.verification.reference import Oracle
from speech_runtime import Bundle, OnnxSpeechSeq2Seq, SessionOptions
from speech_runtime.backends.tensorrt.library import import_tensorrt
from speech_runtime.backends.tensorrt.profiles import graph_profiles
from speech_runtime.bundle.formats import FORMAT_VERSION
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.manifest import Manifest
from speech_runtime.bundle.model_facts import EncoderFacts
from speech_runtime.bundle.profile_limits import ProfileLimits
from speech_runtime.generation.config import GenerationSettings
from token_agreement import token_agreement

ENCODER, DECODER = "wav2vec2", "bert"
"""The encoder of every decoder row, and the decoder of every encoder row."""

SEARCHES: tuple[GenerationSettings, ...] = (
    {"num_beams": 1, "max_new_tokens": 24},
    {"num_beams": 4, "max_new_tokens": 24, "num_return_sequences": 2},
)
LIMITS = ProfileLimits(
    batch=(1, 2, 4), beams=(1, 4, 8), seconds=(0.004, 0.03, 0.125), tokens=(1, 10, 40), step_tokens=(1, 1, 4)
)
"""Limits of the TensorRT profiles."""

Array = NDArray[Any]
Encode = Callable[[Array, Array], tuple[Array, Array]]


@dataclass(frozen=True)
class Pairing:
    """A row of the table; `name` is that of the encoder or decoder under test.

    Where it is `whole`, both are those of a speech model with a decoder of its own.
    """

    name: str
    encoder: str
    decoder: str
    whole: bool = False


@dataclass(frozen=True)
class Measured:
    """Measurements of a composite in float32, on a padded batch of three clips.

    Attributes:
        logprob_difference: Largest difference of a log-probability from torch.
        greedy: Share of tokens equal to those of torch, greedy search.
        beams: Share of tokens equal to those of torch, 2 best of 4 beams.
        padding: Largest change of the encoder output when a clip is encoded alone instead of in the batch.
        torch_padding: The same change in torch.
    """

    logprob_difference: float
    greedy: float
    beams: float
    padding: float
    torch_padding: float


ENCODER_ROWS = [Pairing(name, name, DECODER) for name in ENCODERS]
DECODER_ROWS = [Pairing(name, ENCODER, name) for name in DECODERS]
NATIVE_ROWS = [Pairing(f"{name}, whole", name, name, whole=True) for name in sorted((*NATIVE, "whisper"))]


def measure(pairing: Pairing) -> Measured:
    """Export a composite for the CPU, and compare it with torch.

    Raises:
        ExportError: it is refused.
    """
    with tempfile.TemporaryDirectory() as directory:
        return measured_in(Path(directory) / "bundle", pairing)


def measured_in(directory: Path, pairing: Pairing, precision: PrecisionOptions | None = None) -> Measured:
    """Export a composite into `directory`, and compare it with torch, on the CPU whatever its target.

    Raises:
        ExportError: it is refused.
    """
    model = joined_halves(native(pairing.encoder)) if pairing.whole else composite(pairing.decoder, pairing.encoder)
    bundle = export(model, directory, precision=precision)
    exported = OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=SessionOptions(intra_op_threads=1))
    facts, decoder = exported.manifest.encoder, exported.manifest.decoder
    lengths = clip_lengths(facts)
    inputs, mask = padded_batch(facts, lengths)
    oracle = Oracle(model, inputs, mask)
    agreement = []
    for search in SEARCHES:
        expected = oracle.generate(**search)
        found = exported.generate(inputs, mask, **search)
        agreement.append(token_agreement(expected, found))
    tokens = np.random.default_rng(1).integers(4, decoder.vocab_size, (3, 11))
    logits = torch.from_numpy(exported.forward(inputs, mask, decoder_input_ids=tokens).logits)
    error = oracle.logprobs(tokens) - torch.log_softmax(logits, dim=-1)

    def encode(inputs: Array, mask: Array) -> tuple[Array, Array]:
        encoded = exported.encode(inputs, mask)
        return exported._backend.download(encoded.hidden_states), exported._backend.download(encoded.attention_mask)

    def encode_in_torch(inputs: Array, mask: Array) -> tuple[Array, Array]:
        hidden_states, frames = Oracle(model, inputs, mask).encode()
        return hidden_states.numpy(), frames.numpy()

    return Measured(
        logprob_difference=float(error.abs().max()),
        greedy=agreement[0],
        beams=agreement[1],
        padding=_padding(encode, inputs, mask, lengths),
        torch_padding=_padding(encode_in_torch, inputs, mask, lengths),
    )


def engine_bytes(bundle: Bundle, graph: str, limits: ProfileLimits = LIMITS) -> int:
    """Return the size, in bytes, of the TensorRT-RTX engine of a graph of `bundle`."""
    profiles = graph_profiles(bundle, limits)[graph]
    with tempfile.TemporaryDirectory() as directory:
        engine = Path(directory) / "engine"
        build_engine(import_tensorrt("tensorrt_rtx"), bundle.path(f"{graph}.onnx"), profiles, engine)
        return engine.stat().st_size


def bundle_engine_bytes(directory: Path) -> int:
    """Return the size, in bytes, of the engines of all three graphs of the bundle in `directory`."""
    bundle = Bundle.open(directory, check_hashes=False)
    return sum(engine_bytes(bundle, graph) for graph in GRAPHS)


def traced_engine_bytes(pairing: Pairing) -> int:
    """Return the size, in bytes, of the three float32 engines; the engine that many rows share is built once.

    Raises:
        ExportError: one is refused.
    """
    encoder = _traced_engine_bytes(GRAPHS[0], pairing.encoder, DECODER)
    return encoder + sum(_traced_engine_bytes(graph, ENCODER, pairing.decoder) for graph in GRAPHS[1:])


@cache
def _traced_engine_bytes(graph: str, encoder: str, decoder: str) -> int:
    model = composite(decoder, encoder)
    facts, of_decoder = encoder_facts(model.encoder), decoder_facts(model, top_k=4)
    with tempfile.TemporaryDirectory() as directory, rewritten_for_tracing(model):
        path = Path(directory) / f"{graph}.onnx"
        traceable_graph = next(each for each in traceables(model, facts, of_decoder) if each.name == graph)
        save(trace(traceable_graph, facts.input_name, of_decoder.layers), path)
        manifest = Manifest(FORMAT_VERSION, "", {}, "fp32", "tensorrt", facts, of_decoder, None, {})
        return engine_bytes(Bundle(Path(directory), manifest), graph)


def clip_lengths(encoder: EncoderFacts) -> list[int]:
    """Return three odd lengths; the shortest is the least that the encoder takes."""
    if encoder.max_length == encoder.min_length:
        return [encoder.min_length] * 3
    return [encoder.min_length + extra for extra in (37 * encoder.stride + 3, 0, 11 * encoder.stride + 1)]


def padded_batch(encoder: EncoderFacts, lengths: list[int]) -> tuple[Array, Array]:
    """Return noise of the given lengths, padded with zeros, and its mask."""
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    width = () if encoder.feature_size is None else (encoder.feature_size,)
    noise = np.random.default_rng(0).standard_normal((*mask.shape, *width)).astype(np.float32)
    noise[mask == 0] = 0
    return noise, mask


def _padding(encode: Encode, inputs: Array, mask: Array, lengths: list[int]) -> float:
    """Return the largest change of the output of `encode` when a clip is alone instead of in a padded batch."""
    together, frames = encode(inputs, mask)
    differences = []
    for row, length in enumerate(lengths):
        alone, _ = encode(inputs[row : row + 1, :length], mask[row : row + 1, :length])
        heard = min(int(frames[row].sum()), alone.shape[1])
        differences.append(np.abs(together[row, :heard] - alone[0, :heard]).max())
    return float(max(differences))


def model_type(name: str) -> str:
    """Return the model type of a row; the name of a variant follows a comma."""
    return name.partition(",")[0]
