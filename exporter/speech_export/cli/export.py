"""The `speech-export` command."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click

from speech_runtime import Bundle, SpeechError
from speech_runtime.bundle.manifest import MANIFEST
from speech_runtime.bundle.safe_files import is_there
from speech_runtime.cli.console import complain, log_on_stderr
from speech_runtime.cli.describe import measured_on, trimming_lines, verification_lines
from speech_runtime.cli.entry import exit_when_interrupted
from speech_runtime.cli.flags import FLOAT, INTEGER, IntegerRange
from speech_runtime.paths import expanded
from speech_runtime.system import MIB

from ..bundle_writer.staging import check_target
from ..errors import shortened
from ..limits import DEFAULT_TOP_K, QUANTIZED_LIMITS, Limits
from ..precision.options import OpKind, Precision, PrecisionOptions, Target
from ..verification.evaluation_audio import audio_files
from ..vocabulary.files import check_vocabulary_files
from .console import Progress, export_libraries
from .engines import EngineBuild, engine_flags, target_for_engines
from .help import EXAMPLES, HEADINGS, GroupedCommand, list_families_flag
from .source_flags import Source, source_flags

_STAGES = 5


@click.command(
    cls=GroupedCommand,
    headings=HEADINGS,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("-o", "--output", type=click.Path(), help="Directory of the bundle.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle, once the new one is verified.")
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default=PrecisionOptions.precision,
    show_default=True,
    help="Precision of weights and arithmetic: fp16 for GPUs, int8 for CPUs and TensorRT; int4 stores the decoder's "
    "weights in 4 bits and is int8 elsewhere.",
)
@click.option(
    "--target",
    type=click.Choice(get_args(Target)),
    default=PrecisionOptions.target,
    show_default=True,
    help="Hardware or library that runs the graphs.",
)
@click.option("--encoder-precision", type=click.Choice(get_args(Precision)), help="Precision of the encoder alone.")
@click.option("--decoder-precision", type=click.Choice(get_args(Precision)), help="Precision of the decoder alone.")
@click.option(
    "--quantize",
    "op_kinds",
    multiple=True,
    type=click.Choice(get_args(OpKind)),
    default=PrecisionOptions.op_kinds,
    show_default=True,
    help="Operations that int8 and int4 quantise; repeatable.",
)
@click.option(
    "--keep-float32",
    multiple=True,
    metavar="PATTERN",
    help="Modules that stay float32, such as 'decoder.lm_head' or '*.layers.0.*'; repeatable.",
)
@click.option(
    "--block-size",
    type=INTEGER,
    default=PrecisionOptions.block_size,
    show_default=True,
    help="Number of weights that share a scale in int4: 16, 32, 64, 128 or 256.",
)
@click.option(
    "--accuracy-level",
    type=INTEGER,
    default=PrecisionOptions.accuracy_level,
    show_default=True,
    help="Arithmetic of int4: 4 multiplies in int8, 1 in float32, 0 is ONNX Runtime's choice.",
)
@click.option(
    "--top-k",
    type=IntegerRange(2),
    default=DEFAULT_TOP_K,
    show_default=True,
    help="Number of candidates that a step returns for each beam.",
)
@click.option(
    "--static-cache",
    type=INTEGER,
    metavar="TOKENS",
    help="Give the decoder a cache of this length for TensorRT, so that CUDA graphs can record its steps. "
    "[default: it grows]",
)
@click.option(
    "--growing-cache",
    is_flag=True,
    help="Let the decoder's cache grow for CUDA too. [default: beams share one, and CUDA graphs can record steps]",
)
@click.option(
    "--max-length",
    type=INTEGER,
    metavar="TOKENS",
    help="Maximal length of a text in tokens, unless a call sets its own. [default: the checkpoint's, or as long as "
    "the decoder allows]",
)
@click.option(
    "--vocabulary",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Keep only the tokens that files name, and those that no text does without: token ids (.ids), tokens "
    "(.tokens), or the tokens of a text (.txt); repeatable. [default: all]",
)
@click.option(
    "--vocabulary-check",
    type=click.Path(),
    metavar="FILE",
    help="Count the words of another text (.txt) that can no longer be said.",
)
@click.option(
    "--audio", multiple=True, type=click.Path(), help="Audio file to verify on; repeatable. [default: noise and tones]"
)
@click.option(
    "--calibration-audio",
    type=click.Path(),
    metavar="DIR",
    help="Directory of speech to measure the accuracy on; its reference.tsv (file, text) gives word error rates.",
)
@click.option(
    "--tolerance",
    type=FLOAT,
    help=f"Largest difference of log-probabilities allowed. [default: {Limits.logprob_difference:g}, or "
    f"{Limits.torch_roundings:g} times torch's own rounding if that is larger; quantised: no limit]",
)
@click.option(
    "--min-agreement",
    type=FLOAT,
    help="Share of tokens that must be the same; a low one also lowers that of the text of greedy search "
    f"({QUANTIZED_LIMITS.text_agreement:g} below fp32, on speech). [default: {Limits.agreement:g}; "
    f"quantised: {QUANTIZED_LIMITS.agreement:g}]",
)
@list_families_flag
@click.version_option(package_name="speech-export")
@exit_when_interrupted()
@log_on_stderr("speech_export", "speech_runtime", start="\n")
@source_flags
@engine_flags
def main(
    *,
    source: Source,
    output: str | None,
    overwrite: bool,
    target: Target,
    top_k: int,
    static_cache: int | None,
    growing_cache: bool,
    max_length: int | None,
    vocabulary: tuple[str, ...],
    vocabulary_check: str | None,
    engines: EngineBuild | None,
    audio: tuple[str, ...],
    calibration_audio: str | None,
    tolerance: float | None,
    min_agreement: float | None,
    **precision_options: Any,
) -> None:
    """Export a speech encoder-decoder model to a bundle of ONNX graphs, verified against PyTorch.

    MODEL is a fine-tuned SpeechEncoderDecoderModel, a directory or a Hub id, saved by PyTorch or Flax; or another
    speech model with a decoder of its own, such as Whisper: --list-families names them. Or it is an adapter of one,
    saved by peft, which is merged into the base that it names. Or join two halves with --encoder and --decoder, to
    fine-tune later or to measure now; or two configurations, with --random-weights, for a study of latency. With
    --engines, MODEL may also be a bundle.

    Progress goes to stderr, the summary to stdout. Nothing is left at the output unless the verification passes.
    """
    if engines is not None and output is None and source.model is not None and is_there(Path(source.model) / MANIFEST):
        engines.prepare(source.model)  # nothing is exported, so this needs no torch
        engines.run(source.model)
        return
    if output is None:
        raise click.UsageError(
            "Missing option '-o' / '--output': give the directory of the bundle to write. Only --engines, which adds "
            "engines to a bundle that is there, does without it."
        )
    if engines is not None:
        engines.prepare()
        target = target_for_engines(target)
    try:
        source.check()
        check_target(Path(expanded(output)), overwrite=overwrite)
        if calibration_audio is not None:
            audio_files(calibration_audio)
        check_vocabulary_files(vocabulary, vocabulary_check)
    except SpeechError as error:
        raise click.ClickException(str(error)) from error
    begin = time.perf_counter()
    progress = Progress(_STAGES)
    with export_libraries():
        from ..export_bundle import export
    try:
        options = PrecisionOptions(target=target, **precision_options)
        limits = _limits(options, tolerance, min_agreement)
        progress("loading the model")
        bundle = export(
            source.load(),
            output,
            precision=options,
            top_k=top_k,
            static_cache=static_cache,
            growing_cache=growing_cache,
            max_length=max_length,
            vocabulary=vocabulary,
            vocabulary_check=vocabulary_check,
            audio=audio,
            calibration_audio=calibration_audio,
            limits=limits,
            overwrite=overwrite,
            on_stage=progress,
        )
    except SpeechError as error:
        complain()
        raise click.ClickException(str(error)) from error
    progress.end()
    click.echo(_summary(bundle, time.perf_counter() - begin))
    if engines is not None:
        engines.run(output)


def _limits(precision: PrecisionOptions, tolerance: float | None, min_agreement: float | None) -> Limits | None:
    """Return the limits of the command line; None if it gives none. A given tolerance has no allowance for rounding."""
    options = {"logprob_difference": tolerance, "agreement": min_agreement}
    given = {name: value for name, value in options.items() if value is not None}
    if min_agreement is not None and precision.below_float32:
        given["text_agreement"] = min(min_agreement, QUANTIZED_LIMITS.text_agreement)
    if tolerance is not None:
        given["torch_roundings"] = 0.0
    return replace(QUANTIZED_LIMITS if precision.below_float32 else Limits(), **given) if given else None


def _summary(bundle: Bundle, seconds: float) -> str:
    files, verification = bundle.manifest.files, bundle.manifest.verification
    graphs: dict[str, int] = {}
    for name, file in files.items():
        if ".onnx" in name:
            graph = name.partition(".onnx")[0]
            graphs[graph] = graphs.get(graph, 0) + file.size
    lines = [f"{graph:<20}{size / MIB:>10.2f} MiB" for graph, size in graphs.items()]
    lines += [f"{'whole bundle':<20}{bundle.size / MIB:>10.2f} MiB   {bundle.directory}"]
    lines += [f"{'exported in':<20}{seconds:>10.1f} s"]
    if (quantization := bundle.manifest.quantization) is not None:
        kept = quantization.kept_float32
        lines += [f"encoder {quantization.encoder}, decoder {quantization.decoder}"]
        lines += [f"  in float32: {shortened(list(kept), 8) if kept else 'nothing that could be smaller'}"]
    if (trimming := bundle.manifest.trimming) is not None:
        lines += [f"vocabulary: {line}" for line in trimming_lines(bundle.manifest, trimming)]
    if verification is not None:
        lines += [f"verified {measured_on(bundle.manifest, verification)}:"]
        lines += [f"  {line}" for line in verification_lines(verification)]
    return "\n".join(lines)
