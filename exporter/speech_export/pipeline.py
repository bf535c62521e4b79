"""`export`: a composite model to a verified bundle on disk, or nothing at all."""

import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import SpeechEncoderDecoderModel

from speech_runtime import Bundle, GenerationConfig, OnnxSpeechSeq2Seq, SpeechError
from speech_runtime.audio import read_audio
from speech_runtime.bundle import (
    FORMAT_VERSION,
    GENERATION_CONFIG,
    PREPROCESSOR_CONFIG,
    TOKENIZER,
    EncoderFacts,
    FileFacts,
    Manifest,
)
from speech_runtime.features import (
    EXTRACTORS,
    FeatureExtractor,
    WaveformExtractor,
    check_fit,
    read_feature_extractor,
)

from .errors import ExportError
from .facts import decoder_facts, encoder_facts
from .passes.metadata import strip_metadata
from .passes.shared_weights import share_transposed_weights
from .rewrites.traceable import traceable
from .settings import DEFAULT_TOP_K, Limits
from .sources.checkpoint import load_checkpoint
from .sources.composite import Composite
from .staging import staged
from .text.runtime_tokenizer import runtime_tokenizer
from .trace import save, trace, traceables
from .verify import VerificationAudio, generated_audio, generated_features, verify

logger = logging.getLogger(__name__)

_PRODUCERS = ("speech-export", "torch", "transformers", "onnx", "onnxscript")


def export(
    model: SpeechEncoderDecoderModel | Composite | str | Path,
    output_dir: str | Path,
    *,
    processor: Any | None = None,
    feature_extractor: Any | None = None,
    tokenizer: Any | None = None,
    top_k: int = DEFAULT_TOP_K,
    audio: Sequence[str | Path] = (),
    limits: Limits | None = None,
    overwrite: bool = False,
    on_stage: Callable[[str], None] = logger.info,
) -> Bundle:
    """Export a composite model to the bundle `output_dir`, float32, for ONNX Runtime.

    The bundle appears when it is complete and verified, all at once; whatever goes wrong before leaves `output_dir`
    as it was.

    Args:
        model: a fine-tuned checkpoint (directory or Hub id), a model in memory, or what `load_checkpoint` or
            `load_pair` return.
        output_dir: where the bundle goes; its parent is made where it does not exist.
        processor: of a model in memory: what has its `feature_extractor` and `tokenizer`.
        feature_extractor: of a model in memory; without one the bundle takes model input only, not audio.
        tokenizer: of a model in memory; without one the bundle yields token ids only, not text.
        top_k: candidates that a step returns for each beam.
        audio: files to verify on; noise and tones where there are none.
        limits: how far the graphs may be from the torch model.
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
    with staged(Path(output_dir), overwrite=overwrite) as directory:
        extractor = feature_extractor or getattr(processor, "feature_extractor", None)
        composite = _compose(model, extractor, tokenizer or getattr(processor, "tokenizer", None), on_stage)
        _write(composite, directory, top_k, on_stage)
        on_stage("verifying against torch")
        _verify(composite, directory, audio, limits or Limits())
    return Bundle.open(output_dir)


def _compose(
    model: SpeechEncoderDecoderModel | Composite | str | Path,
    feature_extractor: Any | None,
    tokenizer: Any | None,
    on_stage: Callable[[str], None],
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


def _write(composite: Composite, directory: Path, top_k: int, on_stage: Callable[[str], None]) -> None:
    """Write everything into `directory`; the manifest comes last and is not verified yet."""
    model = composite.model
    if any(tensor.dtype != torch.float32 or tensor.device.type != "cpu" for tensor in model.parameters()):
        raise ExportError("the model must be float32 on the CPU to be exported: model.float().cpu()")
    training = model.training
    model.eval()
    try:
        encoder, decoder = encoder_facts(model.encoder), decoder_facts(model, top_k)
        _write_configuration(composite, encoder, directory)
        with traceable(model):
            for graph in traceables(model, encoder, decoder):
                on_stage(f"tracing {graph.name}")
                traced = trace(graph, encoder.input_name, decoder.layers)
                share_transposed_weights(traced)
                strip_metadata(traced)
                save(traced, directory / f"{graph.name}.onnx")
    finally:
        model.train(training)
    Manifest(
        format_version=FORMAT_VERSION,
        source=composite.source,
        producer={"python": platform.python_version(), **{name: version(name) for name in _PRODUCERS}},
        precision="fp32",
        target="cpu",
        encoder=encoder,
        decoder=decoder,
        verification=None,
        files={path.name: FileFacts.of(path) for path in sorted(directory.iterdir())},
    ).write(directory)


def _write_configuration(composite: Composite, encoder: EncoderFacts, directory: Path) -> None:
    """Write all but the graphs, and let the runtime read it: what it refuses need not be traced first."""
    composite.model.config.save_pretrained(directory)
    composite.model.generation_config.save_pretrained(directory)
    try:
        _ = GenerationConfig.from_file(directory / GENERATION_CONFIG).start_token_ids(1)
        _write_feature_extractor(composite.feature_extractor, encoder, directory)
    except SpeechError as error:
        raise ExportError(f"the runtime does not take this model: {error}") from error
    if composite.tokenizer is not None:
        composite.tokenizer.save_pretrained(directory)
        runtime_tokenizer(composite.tokenizer).save(str(directory / TOKENIZER))


def _write_feature_extractor(extractor: Any | None, encoder: EncoderFacts, directory: Path) -> None:
    """Write the extractor if the runtime knows its kind; it refuses settings that it cannot follow."""
    kind = type(extractor).__name__
    if extractor is None:
        return
    if kind not in EXTRACTORS:
        logger.warning("The runtime does not know %s: the bundle takes ready-made features, not audio.", kind)
        return
    extractor.save_pretrained(directory)
    check_fit(read_feature_extractor(directory / PREPROCESSOR_CONFIG), encoder)


def _verify(composite: Composite, directory: Path, audio: Sequence[str | Path], limits: Limits) -> None:
    """Verify the bundle in `directory` and enter the result in its manifest."""
    bundle = Bundle.open(directory, check_hashes=False)
    exported = OnnxSpeechSeq2Seq.from_pretrained(directory, check_hashes=False)
    result = verify(composite.model, exported, _verification_audio(bundle, exported.feature_extractor, audio), limits)
    replace(bundle.manifest, verification=result).write(directory)


def _verification_audio(
    bundle: Bundle, extractor: FeatureExtractor | None, files: Sequence[str | Path]
) -> VerificationAudio:
    encoder = bundle.manifest.encoder
    if extractor is None and encoder.feature_size is not None:
        if files:
            raise ExportError("without a feature extractor that the runtime knows, audio cannot be verified on")
        return generated_features(encoder)
    extractor = extractor or WaveformExtractor(return_attention_mask=True)
    if files:
        clips = [read_audio(file, extractor.sampling_rate) for file in files]
        description = f"{len(files)} files"
    else:
        shortest = encoder.min_length if encoder.feature_size is None else 0
        clips = generated_audio(shortest, extractor.sampling_rate)
        description = "generated noise and tones"
    return VerificationAudio(description, *extractor(clips))
