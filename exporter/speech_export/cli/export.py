"""The `speech-export` command."""

import logging
import time
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, get_args

import click

from speech_runtime import Bundle, SpeechError
from speech_runtime.cli.console import complain, log_on_stderr
from speech_runtime.cli.describe import measured_on, verification_lines
from speech_runtime.cli.entry import exit_when_interrupted
from speech_runtime.cli.flags import hub_flags
from speech_runtime.system import MIB

from ..errors import shortened
from ..limits import DEFAULT_TOP_K, QUANTIZED_LIMITS, Limits
from ..precision.options import OpKind, Precision, PrecisionOptions, Target
from .engines import engine_flags
from .progress import Progress

if TYPE_CHECKING:
    from ..sources.composite import Composite

_STAGES = 5


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", required=False)
@click.option("--encoder", help="Speech encoder to join with --decoder: directory or Hub id.")
@click.option("--decoder", help="Text decoder to join with --encoder: directory or Hub id.")
@click.option("--encoder-config", help="Configuration instead of --encoder: file, directory, Hub id or JSON object.")
@click.option("--decoder-config", help="Configuration instead of --decoder.")
@click.option("--random-weights", is_flag=True, help="Make up the weights of the two configurations.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights that no checkpoint has.")
@click.option("--processor", help="Where feature extractor and tokenizer are, if not with MODEL: directory or Hub id.")
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(["feature-extractor", "tokenizer"]),
    help="Leave it out of the bundle, which then takes model input, or yields token ids; repeatable.",
)
@click.option("--decoder-start-token-id", type=click.IntRange(0), help="Token id that every text begins with.")
@click.option("--eos-token-id", type=click.IntRange(0), help="Token id that ends a text.")
@click.option("--pad-token-id", type=click.IntRange(0), help="Token id that fills a batch after the end.")
@hub_flags
@click.option("-o", "--output", type=click.Path(), help="Directory of the bundle.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there already, once the new one is verified.")
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default=PrecisionOptions.precision,
    show_default=True,
    help="Of weights and arithmetic: fp16 for GPUs, int8 for CPUs and TensorRT; int4 has 4-bit weights in the decoder "
    "and int8 elsewhere.",
)
@click.option(
    "--target",
    type=click.Choice(get_args(Target)),
    default=PrecisionOptions.target,
    show_default=True,
    help="What the graphs are to run on.",
)
@click.option("--encoder-precision", type=click.Choice(get_args(Precision)), help="Of the encoder, if another.")
@click.option("--decoder-precision", type=click.Choice(get_args(Precision)), help="Of the decoder, if another.")
@click.option(
    "--quantize",
    "op_kinds",
    multiple=True,
    type=click.Choice(get_args(OpKind)),
    default=PrecisionOptions.op_kinds,
    show_default=True,
    help="What int8 and int4 quantise; repeatable.",
)
@click.option(
    "--keep-float32",
    multiple=True,
    metavar="PATTERN",
    help="Modules that stay float32, such as 'decoder.lm_head' or '*.layers.0.*'; repeatable.",
)
@click.option(
    "--block-size",
    type=int,
    default=PrecisionOptions.block_size,
    show_default=True,
    help="Weights that share a scale in int4: 16, 32, 64, 128 or 256.",
)
@click.option(
    "--accuracy-level",
    type=int,
    default=PrecisionOptions.accuracy_level,
    show_default=True,
    help="Arithmetic of int4: 4 multiplies in int8, 1 in float32, 0 is ONNX Runtime's choice.",
)
@click.option(
    "--top-k",
    type=click.IntRange(2),
    default=DEFAULT_TOP_K,
    show_default=True,
    help="Candidates a step returns for each beam.",
)
@click.option(
    "--static-cache",
    type=int,
    metavar="TOKENS",
    help="Give the decoder a cache of this length, so that CUDA graphs can record its steps. [default: it grows]",
)
@click.option(
    "--audio", multiple=True, type=click.Path(), help="File to verify on; repeatable. [default: noise and tones]"
)
@click.option(
    "--calibration-audio",
    type=click.Path(),
    metavar="DIR",
    help="Directory of speech to measure the accuracy on; its reference.tsv (file, text) gives word error rates.",
)
@click.option(
    "--tolerance",
    type=float,
    help=f"Largest difference of log-probabilities allowed. [default: {Limits.logprob_difference:g}, or "
    f"{Limits.torch_roundings:g} times torch's own rounding where that is more; quantised: no limit]",
)
@click.option(
    "--min-agreement",
    type=float,
    help=f"Share of tokens that must be the same. [default: {Limits.agreement:g}; "
    f"quantised: {QUANTIZED_LIMITS.agreement:g}]",
)
@click.version_option(package_name="speech-export")
@exit_when_interrupted()
@log_on_stderr("speech_export", "speech_runtime", start="\n")
@engine_flags
def main(
    output: str,
    overwrite: bool,
    top_k: int,
    static_cache: int | None,
    audio: tuple[str, ...],
    calibration_audio: str | None,
    tolerance: float | None,
    min_agreement: float | None,
    **others: Any,
) -> None:
    """Export a speech encoder-decoder model to a bundle of ONNX graphs, verified against PyTorch.

    MODEL is a fine-tuned SpeechEncoderDecoderModel, a directory or a Hub id, of torch or of Flax. Or join two halves
    with --encoder and --decoder, to fine-tune later or to measure now; or two configurations, with --random-weights,
    for a study of latency.

    Progress goes to stderr, the summary to stdout. Nothing is left at the output unless the verification passes.
    """
    names = {field.name for field in fields(PrecisionOptions)}
    source = {name: value for name, value in others.items() if name not in names}
    _check_source(source)
    begin = time.perf_counter()
    progress = Progress(_STAGES)
    try:
        from ..export_bundle import export
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is needed to export: pip install 'speech-export[export,cpu]'"
        ) from error
    except ImportError as error:  # a part of a library, or the memory for it
        raise click.ClickException(f"what is needed to export is there, and cannot be loaded: {error}") from error
    _silence_libraries()
    try:
        precision = PrecisionOptions(**{name: others[name] for name in names})
        limits = _limits(precision, tolerance, min_agreement)
        progress("loading the model")
        composite = _load(**source)
        _warn_of_random_weights(composite)
        bundle = export(
            composite,
            output,
            precision=precision,
            top_k=top_k,
            static_cache=static_cache,
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


def _limits(precision: PrecisionOptions, tolerance: float | None, min_agreement: float | None) -> Limits | None:
    """What was asked for; None where nothing was. A tolerance holds as it is given, however torch rounds."""
    given = {"logprob_difference": tolerance, "agreement": min_agreement}
    asked = {name: value for name, value in given.items() if value is not None}
    if tolerance is not None:
        asked["torch_roundings"] = 0.0
    return replace(QUANTIZED_LIMITS if precision.below_float32 else Limits(), **asked) if asked else None


def _check_source(source: dict[str, Any]) -> None:
    """Check that the model is named in one way, and whole."""
    ways = (("model",), ("encoder", "decoder"), ("encoder_config", "decoder_config"))
    named = [way for way in ways if any(source[name] is not None for name in way)]
    if len(named) != 1 or any(source[name] is None for name in named[0]):
        raise click.UsageError(
            "give either MODEL, or both --encoder and --decoder, or both --encoder-config and --decoder-config"
        )
    if source["random_weights"] != (named[0] == ways[2]):
        raise click.UsageError(
            "configurations have no weights: --random-weights goes with --encoder-config and --decoder-config, and "
            "only with them"
        )


def _load(
    model: str | None,
    encoder: str | None,
    decoder: str | None,
    encoder_config: str | None,
    decoder_config: str | None,
    seed: int,
    processor: str | None,
    without: tuple[str, ...],
    decoder_start_token_id: int | None,
    eos_token_id: int | None,
    pad_token_id: int | None,
    revision: str | None,
    token: str | None,
    cache_dir: str | None,
    local_files_only: bool,
    **_: Any,
) -> "Composite":
    from ..sources.checkpoint import load_checkpoint
    from ..sources.configs import load_configs
    from ..sources.hub import HubOptions
    from ..sources.pair import load_pair
    from ..sources.special_tokens import TokenIds

    hub = HubOptions(revision, token, cache_dir, local_files_only)
    token_ids: TokenIds = {
        "decoder_start_token_id": decoder_start_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
    }
    if encoder and decoder:
        return load_pair(encoder, decoder, seed, hub, without, **token_ids)
    if encoder_config and decoder_config:
        return load_configs(encoder_config, decoder_config, seed, hub, **token_ids)
    return load_checkpoint(str(model), processor, hub, without, **token_ids)


def _silence_libraries() -> None:
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    hub_logging.set_verbosity(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _warn_of_random_weights(composite: "Composite") -> None:
    if not composite.random_weights:
        return
    parameters: dict[str, Any] = dict(composite.model.named_parameters())
    count = sum(parameters[name].numel() for name in composite.random_weights if name in parameters)
    if count == sum(parameter.numel() for parameter in parameters.values()):
        complain(f"\nAll {count:,} parameters are random: this model measures time, it says nothing.")
        return
    complain(
        f"\nWarning: {len(composite.random_weights)} tensors ({count:,} parameters) are in neither checkpoint, "
        f"{composite.random_weights[0]} for example: mostly the new cross-attention. They are random: this model must "
        "be fine-tuned before it says anything."
    )


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
    if verification is not None:
        lines += [f"verified {measured_on(bundle.manifest, verification)}:"]
        lines += [f"  {line}" for line in verification_lines(verification)]
    return "\n".join(lines)
