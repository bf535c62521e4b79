"""`export`: from a composite model to a verified bundle on disk, stage by stage.

1. Load the model and its configuration, and check its weights.
2. Write the configuration, and let the runtime read it, before anything slow starts.
3. Trace the three graphs and optimise them for the target (`passes.pipeline`).
4. Verify the float32 graphs against torch; or convert them to a lower precision and measure the result.
5. Publish the bundle: it takes the place of `output_dir` at once.
"""

import copy
import logging
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel, SpeechEncoderDecoderModel

from speech_runtime import Bundle, OnnxSpeechSeq2Seq
from speech_runtime.audio.features import read_feature_extractor
from speech_runtime.bundle.manifest import PREPROCESSOR_CONFIG, TOKENIZER, Manifest, Trimming
from speech_runtime.bundle.model_facts import DecoderFacts, EncoderFacts
from speech_runtime.interrupts import signals_handled
from speech_runtime.paths import expanded

from .bundle_writer.configuration import write_configuration
from .bundle_writer.manifest import file_facts, quantization, unverified_manifest
from .bundle_writer.staging import staged
from .errors import ExportError
from .families import decoder_family
from .limits import DEFAULT_TOP_K, QUANTIZED_LIMITS, Limits, OnStage
from .passes.pipeline import optimize
from .precision.accuracy_gate import convert_accurately
from .precision.conversion import Part, conversion_for
from .precision.options import Precision, PrecisionOptions
from .sources.checkpoint import load_checkpoint
from .sources.composite import Composite, check_model
from .sources.native import is_native, native_composite
from .sources.special_tokens import complete_special_tokens, start_token
from .tracing.facts import check_cache, decoder_facts, encoder_facts
from .tracing.kept_rows import only_kept_rows
from .tracing.rewrites.rewritten import rewritten_for, rewritten_for_tracing
from .tracing.tracer import OPSETS, save, trace, traceables
from .verification.compare import NEW_TOKENS, judge, verification, verify
from .verification.evaluation_audio import AudioSet, audio_files, audio_set
from .verification.reference import expectations
from .verification.trimmed_torch import only_kept_tokens, transcripts, word_error_rate_of
from .verification.word_errors import word_error_rate
from .vocabulary.files import check_vocabulary_files
from .vocabulary.selection import kept_vocabulary
from .vocabulary.trimming import trimming

logger = logging.getLogger(__name__)


def export(
    model: PreTrainedModel | Composite | str | Path,
    output_dir: str | Path,
    *,
    processor: Any | None = None,
    feature_extractor: Any | None = None,
    tokenizer: Any | None = None,
    precision: PrecisionOptions | None = None,
    top_k: int = DEFAULT_TOP_K,
    static_cache: int | None = None,
    growing_cache: bool = False,
    max_length: int | None = None,
    vocabulary: Sequence[str | Path] = (),
    vocabulary_check: str | Path | None = None,
    audio: Sequence[str | Path] = (),
    calibration_audio: str | Path | None = None,
    limits: Limits | None = None,
    overwrite: bool = False,
    on_stage: OnStage = logger.info,
) -> Bundle:
    """Export a composite model to the bundle `output_dir`, for ONNX Runtime.

    The bundle appears once it is complete and verified. If the export fails, `output_dir` stays as it was.

    Args:
        model: Fine-tuned checkpoint or an adapter of one (directory or Hub id), model in memory, or result of
            `load_checkpoint` or `load_pair`.
        output_dir: Directory of the bundle; its parent is made if it does not exist.
        processor: Processor of a model in memory, with its `feature_extractor` and `tokenizer`.
        feature_extractor: Feature extractor of a model in memory; without one the bundle takes model input only, not
            audio.
        tokenizer: Tokenizer of a model in memory; without one the bundle returns token ids only, not text.
        precision: Precision and target of the graphs; float32 on the CPU by default. Graphs for the CPU and for
            CUDA have operators that only ONNX Runtime knows; those for TensorRT are standard ONNX.
        top_k: Number of candidates that a step returns for each beam.
        static_cache: Number of tokens of a self-attention cache of constant length, for TensorRT: no shape changes from
            step to step, so that CUDA graphs can record a step. None for a cache that grows.
        growing_cache: If true, the cache grows from step to step for CUDA too. By default the beams of an utterance
            share one there, whose steps can be recorded; a family that cannot gets the growing one.
        max_length: Maximal length of a sequence in tokens, the start token included, for calls that set none. By
            default the checkpoint's; if it has none, as long as the decoder allows.
        vocabulary: Files of tokens to keep in the embedding and the head, with those that no text does without. Their
            names say what they hold: token ids (.ids), tokens (.tokens) or text (.txt). By default all are kept.
        vocabulary_check: Text (.txt), other than that of `vocabulary`, in which to count the words that can no longer
            be said.
        audio: Files to verify on; noise and tones by default.
        calibration_audio: Directory with more files to verify on, and a `reference.tsv` with the columns file and text
            if their transcripts are known.
        limits: Largest differences allowed between the graphs and the torch model. By default `Limits()` in float32,
            `QUANTIZED_LIMITS` below it, and none below it for a model with random weights, whose output means nothing.
        overwrite: If true, replace a bundle that is already there.
        on_stage: Function that is called with the name of each stage.

    Returns:
        The bundle, verified.

    Raises:
        ExportError: The model cannot be exported, or `output_dir` cannot be written.
        VerificationError: The output of the graphs differs from the model's.
        AudioError: `audio` cannot be read.
    """
    options = precision or PrecisionOptions()
    if top_k < 2:
        raise ExportError(f"top_k is {top_k}; give 2 or more: beam search needs at least 2 candidates for each beam")
    check_cache(static_cache, options.target, growing=growing_cache)
    if calibration_audio is not None:
        audio_files(calibration_audio)
    check_vocabulary_files(vocabulary, vocabulary_check)
    with signals_handled() as interrupts, staged(Path(expanded(output_dir)), overwrite=overwrite) as directory:

        def begin(stage: str) -> None:
            interrupts.check()
            on_stage(stage)

        composite = _load(model, processor, feature_extractor, tokenizer, begin)
        float32 = directory / "float32" if options.below_float32 else directory
        float32.mkdir(exist_ok=True)
        with _ready(composite):
            check_model(composite)
            encoder = encoder_facts(composite.model.encoder)
            shared = options.target == "cuda" and not growing_cache
            decoder = decoder_facts(composite.model, top_k, static_cache, shared=shared)
            if shared and decoder.cache == "growing":
                _say_why_it_grows(composite.model)
            write_configuration(composite, encoder, decoder, float32, max_length)
            kept = kept_vocabulary(composite, vocabulary, _tokenizer_in(float32), decoder.vocab_size)
            trimmed = trimming(composite, kept, vocabulary, vocabulary_check, options)
            decoder = replace(decoder, kept_tokens=kept.kept, top_k=min(decoder.top_k, kept.count))
            measured_on = _evaluation_audio(encoder, float32, audio, calibration_audio)
            decoder = _trace_and_optimize(composite.model, encoder, decoder, options, float32, begin)
            manifest = unverified_manifest(float32, composite, options, encoder, decoder)
            if trimmed is not None:
                trimmed = _measured(trimmed, composite, manifest, measured_on)
            manifest = replace(manifest, trimming=trimmed)
            manifest.write(float32)
            with only_kept_tokens(composite.model, kept):
                if options.below_float32:
                    begin(f"converting to {options.precision} and measuring")
                    manifest = _convert(composite, manifest, float32, directory, options, measured_on, limits, begin)
                    shutil.rmtree(float32)
                else:
                    begin("verifying against torch")
                    manifest = _verify(composite.model, manifest, directory, measured_on, limits or Limits(), begin)
        manifest.write(directory)
        interrupts.check()
    return Bundle.open(output_dir)


def _load(
    model: PreTrainedModel | Composite | str | Path,
    processor: Any | None,
    feature_extractor: Any | None,
    tokenizer: Any | None,
    begin: OnStage,
) -> Composite:
    if isinstance(model, Composite):
        return model
    if isinstance(model, PreTrainedModel):
        extractor = feature_extractor or getattr(processor, "feature_extractor", None)
        tokenizer = tokenizer or getattr(processor, "tokenizer", None)
        source = model.name_or_path or "a model in memory"
        if isinstance(model, SpeechEncoderDecoderModel):
            return Composite(model, extractor, tokenizer, source)
        if is_native(model.config):
            return native_composite(model, extractor, tokenizer, source)
    if isinstance(model, (str, Path)):
        begin("loading the model")
        return load_checkpoint(str(model))
    if hasattr(model, "merge_and_unload"):
        raise ExportError(
            f"cannot export a {type(model).__name__}, whose adapter is not merged; give model.merge_and_unload(), or "
            "load_checkpoint(BASE, adapter=DIRECTORY)"
        )
    raise ExportError(
        f"cannot export a {type(model).__name__}; give a SpeechEncoderDecoderModel or another speech model with a "
        "decoder that attends to the audio, a checkpoint directory or a Hub id"
    )


@contextmanager
def _ready(composite: Composite) -> Iterator[None]:
    """Within this context, the model is in evaluation mode, and has special tokens if any part of it has some."""
    model, settings = composite.model, composite.model.generation_config
    training = {module: module.training for module in model.modules()}
    model.eval()
    if start_token(settings) is None:  # such as a model in memory that was joined of two halves
        model.generation_config = copy.deepcopy(settings)
        stored = (settings, composite.config, model.decoder.config)
        complete_special_tokens(model.generation_config, composite.source, {}, stored, composite.tokenizer)
    try:
        yield
    finally:
        model.generation_config = settings
        for module, mode in training.items():
            module.training = mode


def _say_why_it_grows(model: SpeechEncoderDecoderModel) -> None:
    logger.warning(
        "The cache of %s grows from step to step, so its steps cannot be recorded as CUDA graphs: %s.",
        model.decoder.config.model_type,
        decoder_family(model.decoder).why_not_tree,
    )


def _evaluation_audio(
    encoder: EncoderFacts, directory: Path, files: Sequence[str | Path], calibration: str | Path | None
) -> AudioSet:
    """Read the audio through the feature extractor in `directory`. This precedes tracing, which takes long."""
    path = directory / PREPROCESSOR_CONFIG
    extractor = read_feature_extractor(path) if path.exists() else None
    return audio_set(encoder, extractor, files, calibration)


def _trace_and_optimize(
    model: SpeechEncoderDecoderModel,
    encoder: EncoderFacts,
    decoder: DecoderFacts,
    options: PrecisionOptions,
    directory: Path,
    begin: OnStage,
) -> DecoderFacts:
    """Write the three graphs in float32; return the decoder's facts, which optimisation may change."""
    rewrites = rewritten_for(options.target, model, decoder.cache, options.encoder_in_bytes)
    with rewritten_for_tracing(model), only_kept_rows(model.decoder, decoder.vocabulary), rewrites:
        for graph in traceables(model, encoder, decoder):
            begin(f"tracing {graph.name}")
            traced = trace(graph, encoder.input_name, decoder.layers, OPSETS[options.target])
            decoder = optimize(traced, graph.name, options.target, decoder)
            save(traced, directory / f"{graph.name}.onnx")
    return decoder


def _tokenizer_in(directory: Path) -> Tokenizer | None:
    path = directory / TOKENIZER
    return Tokenizer.from_file(str(path)) if path.exists() else None


def _measured(trimmed: Trimming, composite: Composite, manifest: Manifest, audio: AudioSet) -> Trimming:
    """Return the record of a smaller vocabulary with what it changes in the texts of torch, if `audio` is speech."""
    if not audio.speech or composite.tokenizer is None:
        return trimmed
    model, new_tokens = composite.model, _new_tokens(manifest)
    full = transcripts(model, audio, new_tokens, manifest.prompt, composite.tokenizer)
    with only_kept_tokens(model, manifest.decoder.vocabulary):
        few = transcripts(model, audio, new_tokens, manifest.prompt, composite.tokenizer)
    return replace(
        trimmed, changed_words=word_error_rate(full, few), full_word_error_rate=word_error_rate_of(full, audio)
    )


def _verify(
    model: SpeechEncoderDecoderModel,
    manifest: Manifest,
    directory: Path,
    audio: AudioSet,
    limits: Limits,
    begin: OnStage,
) -> Manifest:
    """Verify the float32 bundle in `directory` against torch; return its manifest with the result."""
    exported = OnnxSpeechSeq2Seq.from_pretrained(directory, check_hashes=False)
    verified = verify(model, exported, audio, _new_tokens(manifest), limits, begin)
    return replace(manifest, verification=verified)


def _convert(
    composite: Composite,
    manifest: Manifest,
    float32: Path,
    directory: Path,
    options: PrecisionOptions,
    audio: AudioSet,
    limits: Limits | None,
    begin: OnStage,
) -> Manifest:
    """Convert the bundle in `float32` into `directory`; return its manifest with the measurements."""
    if not audio.speech:
        logger.warning(
            "The accuracy is measured on %s, which proves little: give --calibration-audio DIR with speech of the kind "
            "that the model is for.",
            audio.description,
        )
    limits = limits or (Limits(math.inf, 0.0) if composite.random_weights else QUANTIZED_LIMITS)
    if not audio.speech:
        limits = replace(limits, text_agreement=0.0)
    calibration = ((batch.inputs, batch.attention_mask) for batch in audio.batches)
    conversion = conversion_for(float32, manifest, options, calibration)
    expected = list(expectations(composite.model, audio, _new_tokens(manifest), whole=False, template=manifest.prompt))
    converted = convert_accurately(conversion, directory, expected, limits, begin)
    if converted.for_accuracy and not audio.speech:
        _say_what_noise_costs(converted.for_accuracy, conversion.parts, options.precision, audio.description)
    verified = verification(converted.result, audio.description, audio.clips)
    judge(converted.result, verified, limits, free_searches=False)
    return replace(
        manifest,
        verification=verified,
        files=file_facts(directory),
        quantization=quantization(options, converted.kept_float32),
    )


def _say_what_noise_costs(kept: Sequence[Part], parts: Sequence[Part], precision: Precision, measured_on: str) -> None:
    shares = {
        half: sum(part.parameters for part in kept if part.name.startswith(half))
        / max(sum(part.parameters for part in parts if part.name.startswith(half)), 1)
        for half in ("encoder", "decoder")
    }
    logger.warning(
        "%s stay in float32, as large and as slow as without %s, because of the accuracy on %s; on speech fewer may "
        "have to: give --calibration-audio DIR.",
        " and ".join(f"{100 * share:.0f} % of the {half}'s weights" for half, share in shares.items() if share),
        *(precision, measured_on),
    )


def _new_tokens(manifest: Manifest) -> int:
    """Return the number of tokens to generate for each clip: NEW_TOKENS, or fewer if the decoder is too short."""
    return min(NEW_TOKENS, (manifest.decoder.longest or sys.maxsize) - manifest.prompt_length)
