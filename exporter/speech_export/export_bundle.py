"""`export`: a composite model to a verified bundle on disk, or nothing at all."""

import logging
import math
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir
from transformers import SpeechEncoderDecoderModel

from speech_runtime import Bundle, OnnxSpeechSeq2Seq
from speech_runtime.audio.features import read_feature_extractor
from speech_runtime.bundle.formats import FORMAT_VERSION
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, ENCODER
from speech_runtime.bundle.manifest import MANIFEST, PREPROCESSOR_CONFIG, Manifest, Quantization
from speech_runtime.bundle.model_facts import DecoderFacts, EncoderFacts
from speech_runtime.bundle.safe_files import FileFacts
from speech_runtime.interrupts import heeded

from .bundle_writer.configuration import write_configuration
from .bundle_writer.staging import staged
from .errors import ExportError
from .limits import DEFAULT_TOP_K, QUANTIZED_LIMITS, Limits, OnStage
from .passes.cpu.counted_mask import count_mask_fast
from .passes.cpu.cross_attention import fuse_cross_attention
from .passes.cpu.in_place_cache import keep_cache_in_place
from .passes.cpu.plain_shapes import plain_shapes
from .passes.cpu.scaled_queries import scale_queries
from .passes.metadata import strip_metadata
from .passes.module_names import name_after_modules
from .passes.shared_weights import share_transposed_weights
from .passes.unmasked_attention import drop_needless_masks
from .precision.accuracy_gate import convert_accurately
from .precision.conversion import Conversion
from .precision.explicit_quantizer import ExplicitQuantizer
from .precision.half_precision import HalfPrecision
from .precision.options import PrecisionOptions
from .precision.quantizer import Quantizer
from .sources.checkpoint import load_checkpoint
from .sources.composite import Composite
from .sources.weight_checks import check_weights
from .tracing.facts import check_static_cache, decoder_facts, encoder_facts
from .tracing.rewrites.fast_on_cpu import fast_on_cpu
from .tracing.rewrites.traceable import traceable
from .tracing.tracer import save, trace, traceables
from .verification.compare import NEW_TOKENS, judge, verification, verify
from .verification.evaluation_audio import AudioSet, audio_files, audio_set
from .verification.expectation import expectations

logger = logging.getLogger(__name__)

_PRODUCERS = ("speech-export", "torch", "transformers", "onnx", "onnxscript")
_FLOAT32 = "float32"
"""Within the staging directory: the graphs that are converted from here into it."""


def export(
    model: SpeechEncoderDecoderModel | Composite | str | Path,
    output_dir: str | Path,
    *,
    processor: Any | None = None,
    feature_extractor: Any | None = None,
    tokenizer: Any | None = None,
    precision: PrecisionOptions | None = None,
    top_k: int = DEFAULT_TOP_K,
    static_cache: int | None = None,
    audio: Sequence[str | Path] = (),
    calibration_audio: str | Path | None = None,
    limits: Limits | None = None,
    overwrite: bool = False,
    on_stage: OnStage = logger.info,
) -> Bundle:
    """Export a composite model to the bundle `output_dir`, for ONNX Runtime.

    The bundle appears when it is complete and verified, all at once; whatever goes wrong before leaves `output_dir`
    as it was.

    Args:
        model: a fine-tuned checkpoint (directory or Hub id), a model in memory, or what `load_checkpoint` or
            `load_pair` return.
        output_dir: where the bundle goes; its parent is made where it does not exist.
        processor: of a model in memory: what has its `feature_extractor` and `tokenizer`.
        feature_extractor: of a model in memory; without one the bundle takes model input only, not audio.
        tokenizer: of a model in memory; without one the bundle yields token ids only, not text.
        precision: what the graphs compute with, and on: float32 on the CPU without it. Graphs for the CPU have
            operations that only ONNX Runtime knows, all others are plain ONNX.
        top_k: candidates that a step returns for each beam.
        static_cache: tokens of a self-attention cache that is of one length for ever, so that no shape changes from
            step to step, and CUDA graphs can record one; for GPUs. None for a cache that grows.
        audio: files to verify on; noise and tones where there are none.
        calibration_audio: a directory with more of them, and `reference.tsv` with the columns file and text where it
            is known what they say.
        limits: how far the graphs may be from the torch model; a quantised one of random weights, which say nothing,
            may be anywhere without them.
        overwrite: replace a bundle that is there already.
        on_stage: told what is being done.

    Returns:
        The bundle, checked.

    Raises:
        ExportError: the model cannot be exported, or `output_dir` not written.
        VerificationError: the graphs do not say what the model says.
        AudioError: `audio` cannot be read.
    """
    if top_k < 2:
        raise ExportError(f"top_k is {top_k}; beam search needs 2 candidates for each beam at least")
    options = precision or PrecisionOptions()
    if static_cache is not None:
        check_static_cache(static_cache, options.target)
    if calibration_audio is not None:
        audio_files(calibration_audio)
    with heeded() as interrupts, staged(Path(output_dir), overwrite=overwrite) as directory:

        def begin(stage: str) -> None:
            interrupts.check()
            on_stage(stage)

        extractor = feature_extractor or getattr(processor, "feature_extractor", None)
        composite = _compose(model, extractor, tokenizer or getattr(processor, "tokenizer", None), begin)
        traced = directory / _FLOAT32 if options.below_float32 else directory
        traced.mkdir(exist_ok=True)
        read_audio = partial(_audio_set, directory=traced, files=audio, calibration=calibration_audio)
        manifest, measured_on = _write(composite, traced, top_k, static_cache, options, read_audio, begin)
        if options.below_float32:
            begin(f"converting to {options.precision} and measuring")
            _convert(composite, manifest, directory, options, measured_on, limits, begin)
        else:
            begin("verifying against torch")
            _verify(composite, manifest, directory, measured_on, limits or Limits(), begin)
        interrupts.check()
    return Bundle.open(output_dir)


def _compose(
    model: SpeechEncoderDecoderModel | Composite | str | Path,
    feature_extractor: Any | None,
    tokenizer: Any | None,
    on_stage: OnStage,
) -> Composite:
    if isinstance(model, Composite):
        return model
    if isinstance(model, SpeechEncoderDecoderModel):
        source = model.name_or_path or "a model in memory"
        return Composite(model, feature_extractor, tokenizer, source)
    if isinstance(model, (str, Path)):
        on_stage("loading the model")
        return load_checkpoint(str(model))
    raise ExportError(
        f"cannot export a {type(model).__name__}; give a SpeechEncoderDecoderModel, a checkpoint directory or a Hub id"
    )


def _write(
    composite: Composite,
    directory: Path,
    top_k: int,
    static_cache: int | None,
    options: PrecisionOptions,
    read_audio: Callable[[EncoderFacts], AudioSet],
    on_stage: OnStage,
) -> tuple[Manifest, AudioSet]:
    """Write everything in float32 into `directory`; the manifest comes last and is not verified yet.

    The audio to measure on is read before anything is traced, which takes long.
    """
    model = composite.model
    check_weights(model)
    training = model.training
    model.eval()
    try:
        encoder, decoder = encoder_facts(model.encoder), decoder_facts(model, top_k, static_cache)
        write_configuration(composite, encoder, decoder, directory)
        measured_on = read_audio(encoder)
        fast = fast_on_cpu(model.encoder, options.encoder_in_bytes) if options.target == "cpu" else nullcontext()
        with traceable(model), fast:
            for graph in traceables(model, encoder, decoder):
                on_stage(f"tracing {graph.name}")
                traced = trace(graph, encoder.input_name, decoder.layers)
                share_transposed_weights(traced)
                name_after_modules(traced)
                drop_needless_masks(traced)
                if options.target == "cpu":
                    decoder = _suit_cpu(traced, graph.name, decoder)
                strip_metadata(traced)
                save(traced, directory / f"{graph.name}.onnx")
    finally:
        model.train(training)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        source=composite.source,
        producer={"python": platform.python_version(), **{name: version(name) for name in _PRODUCERS}},
        precision=options.precision,
        target=options.target,
        encoder=encoder,
        decoder=decoder,
        verification=None,
        files=_file_facts(directory),
    )
    manifest.write(directory)
    return manifest, measured_on


def _suit_cpu(model: ir.Model, graph: str, decoder: DecoderFacts) -> DecoderFacts:
    """Rewrite a traced graph for ONNX Runtime's CPU; the decoder's facts, as its step may write into its cache now."""
    count_mask_fast(model)
    if graph == DECODER_WITH_PAST:
        fuse_cross_attention(model, decoder.layers)
        shape = decoder.layers, decoder.heads, decoder.head_dim
        if decoder.max_tokens is None and keep_cache_in_place(model, *shape, decoder.max_positions):
            decoder = replace(decoder, cache="in_place")
        scale_queries(model)
    plain_shapes(model)
    return decoder


def _file_facts(directory: Path) -> dict[str, FileFacts]:
    files = (path for path in sorted(directory.iterdir()) if path.is_file() and path.name != MANIFEST)
    return {path.name: FileFacts.of(path) for path in files}


def _audio_set(
    encoder: EncoderFacts, directory: Path, files: Sequence[str | Path], calibration: str | Path | None
) -> AudioSet:
    path = directory / PREPROCESSOR_CONFIG
    extractor = read_feature_extractor(path) if path.exists() else None
    return audio_set(encoder, extractor, files, calibration)


def _new_tokens(manifest: Manifest) -> int:
    return min(NEW_TOKENS, (manifest.decoder.longest or sys.maxsize) - 1)


def _verify(
    composite: Composite, manifest: Manifest, directory: Path, audio: AudioSet, limits: Limits, on_stage: OnStage
) -> None:
    """Verify the float32 bundle in `directory` and enter the result in its manifest."""
    exported = OnnxSpeechSeq2Seq.from_pretrained(directory, check_hashes=False)
    verified = verify(composite.model, exported, audio, _new_tokens(manifest), limits, on_stage)
    replace(manifest, verification=verified).write(directory)


def _convert(
    composite: Composite,
    manifest: Manifest,
    directory: Path,
    options: PrecisionOptions,
    audio: AudioSet,
    limits: Limits | None,
    on_stage: OnStage,
) -> None:
    """Convert what is in `directory`'s float32 into it, and enter what was measured in its manifest."""
    if not audio.speech:
        logger.warning(
            "The accuracy is measured on %s, which says little: give --calibration-audio DIR with speech of the kind "
            "that the model is for.",
            audio.description,
        )
    if limits is None:
        limits = Limits(math.inf, 0.0) if composite.random_weights else QUANTIZED_LIMITS
    conversion = _conversion(directory / _FLOAT32, manifest, options, audio)
    expected = list(expectations(composite.model, audio, _new_tokens(manifest), whole=False))
    converted = convert_accurately(conversion, directory, expected, limits, on_stage)
    shutil.rmtree(directory / _FLOAT32)
    verified = verification(converted.result, audio.description, audio.clips)
    judge(converted.result, verified, limits, free_searches=False)
    precisions = options.of(ENCODER), options.of(DECODER_WITH_PAST)
    replace(
        manifest,
        verification=verified,
        files=_file_facts(directory),
        quantization=Quantization(
            encoder=precisions[0],
            decoder=precisions[1],
            op_kinds=() if options.halves else options.op_kinds,
            block_size=options.block_size if "int4" in precisions else None,
            accuracy_level=options.accuracy_level if "int4" in precisions else None,
            kept_float32=converted.kept_float32,
        ),
    ).write(directory)


def _conversion(float32: Path, manifest: Manifest, options: PrecisionOptions, audio: AudioSet) -> Conversion:
    calibration = ((batch.inputs, batch.attention_mask) for batch in audio.batches)
    if options.halves:
        return HalfPrecision(float32, manifest, options, calibration)
    if options.quantises_explicitly:
        return ExplicitQuantizer(float32, manifest, options, calibration)
    return Quantizer(float32, manifest, options)
