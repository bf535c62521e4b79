"""The `speech-export` command."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from speech_runtime import Bundle, SpeechError
from speech_runtime.bundle.manifest import MANIFEST
from speech_runtime.bundle.safe_files import is_there
from speech_runtime.cli.console import complain, log_on_stderr
from speech_runtime.cli.describe import measured_on, verification_lines
from speech_runtime.cli.entry import exit_when_interrupted
from speech_runtime.cli.flags import IntegerRange, hub_flags
from speech_runtime.system import MIB

from ..errors import shortened
from ..limits import DEFAULT_TOP_K, QUANTIZED_LIMITS, Limits
from ..precision.options import OpKind, Precision, PrecisionOptions, Target
from .engines import EngineBuild, engine_flags
from .help import GroupedCommand
from .progress import Progress

if TYPE_CHECKING:
    from ..sources.composite import Composite

_STAGES = 5

_HEADINGS = {
    "Source of the model": (
        *("encoder", "decoder", "encoder_config", "decoder_config", "random_weights", "seed", "processor", "without"),
        *("decoder_start_token_id", "eos_token_id", "pad_token_id"),
    ),
    "Hub": ("revision", "token", "cache_dir", "local_files_only"),
    "Output": ("output", "overwrite"),
    "Precision": (
        *("precision", "encoder_precision", "decoder_precision", "op_kinds", "keep_float32", "block_size"),
        "accuracy_level",
    ),
    "Target and graphs": ("target", "static_cache", "top_k"),
    "TensorRT engines": ("engines", "trt_"),
    "Verification": ("audio", "calibration_audio", "tolerance", "min_agreement"),
}

_EXAMPLES = """\b
Examples:
  A fine-tuned checkpoint, for the CPU:
    speech-export checkpoint -o bundle
  The same in int8, with the accuracy measured on your own speech:
    speech-export checkpoint -o bundle --precision int8 --calibration-audio speech/
  For an NVIDIA GPU, in half precision:
    speech-export checkpoint -o bundle --precision fp16 --target cuda
  With TensorRT engines, in one step or for a bundle that was exported with --target tensorrt:
    speech-export checkpoint -o bundle --engines
    speech-export bundle --engines
  Two halves that are to be fine-tuned later:
    speech-export --encoder facebook/wav2vec2-base --decoder google-bert/bert-base-uncased -o bundle
  A study of latency, without any weights:
    speech-export --encoder-config encoder.json --decoder-config decoder.json --random-weights -o bundle
"""


def _list_families(context: click.Context, _: click.Parameter, asked: bool) -> None:
    """Print the families that can be exported, and end the command."""
    if not asked or context.resilient_parsing:
        return
    with _export_extra():
        from ..families.supported import supported_families
    _silence_libraries()
    families = supported_families()
    for title, names in (
        ("Encoders", families.encoders),
        ("Decoders", families.decoders),
        ("Audio models that cannot be an encoder: they do not downsample an attention mask", families.other_audio),
    ):
        listed = fill(", ".join(names), 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        click.echo(f"{title}:\n{listed}\n")
    click.echo("Decoders that are refused:")
    for name, reason in families.refused.items():
        click.echo(f"  {name}: {reason}")
    context.exit()


@click.command(
    cls=GroupedCommand,
    headings=_HEADINGS,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("model", required=False)
@click.option("--encoder", help="Speech encoder to join with --decoder: directory or Hub id.")
@click.option("--decoder", help="Text decoder to join with --encoder: directory or Hub id.")
@click.option("--encoder-config", help="Configuration in place of --encoder: file, directory, Hub id or JSON object.")
@click.option("--decoder-config", help="Configuration in place of --decoder.")
@click.option("--random-weights", is_flag=True, help="Give the two configurations random weights.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of weights that no checkpoint has.")
@click.option(
    "--processor", help="Directory or Hub id of feature extractor and tokenizer, if they are not beside MODEL."
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(["feature-extractor", "tokenizer"]),
    help="Leave a part out of the bundle, which then takes model input, or returns token ids; repeatable.",
)
@click.option(
    "--decoder-start-token-id",
    type=IntegerRange(0),
    metavar="ID",
    help="Token id that every text begins with. [default: as stored, or the tokenizer's bos or cls token]",
)
@click.option(
    "--eos-token-id",
    type=IntegerRange(0),
    metavar="ID",
    help="Token id that ends a text. [default: as stored, or the tokenizer's eos or sep token]",
)
@click.option(
    "--pad-token-id",
    type=IntegerRange(0),
    metavar="ID",
    help="Token id that fills a batch. [default: as stored, or the tokenizer's]",
)
@hub_flags
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
    type=int,
    default=PrecisionOptions.block_size,
    show_default=True,
    help="Number of weights that share a scale in int4: 16, 32, 64, 128 or 256.",
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
    help="Number of candidates that a step returns for each beam.",
)
@click.option(
    "--static-cache",
    type=int,
    metavar="TOKENS",
    help="Give the decoder a cache of this length, so that CUDA graphs can record its steps. [default: it grows]",
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
@click.option(
    "--list-families",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_families,
    help="List the model families that can be exported, and those that are refused.",
)
@click.version_option(package_name="speech-export")
@exit_when_interrupted()
@log_on_stderr("speech_export", "speech_runtime", start="\n")
@engine_flags
def main(
    *,
    model: str | None,
    encoder: str | None,
    decoder: str | None,
    encoder_config: str | None,
    decoder_config: str | None,
    random_weights: bool,
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
    output: str | None,
    overwrite: bool,
    precision: Precision,
    target: Target,
    encoder_precision: Precision | None,
    decoder_precision: Precision | None,
    op_kinds: tuple[OpKind, ...],
    keep_float32: tuple[str, ...],
    block_size: int,
    accuracy_level: int,
    top_k: int,
    static_cache: int | None,
    engines: EngineBuild | None,
    audio: tuple[str, ...],
    calibration_audio: str | None,
    tolerance: float | None,
    min_agreement: float | None,
) -> None:
    """Export a speech encoder-decoder model to a bundle of ONNX graphs, verified against PyTorch.

    MODEL is a fine-tuned SpeechEncoderDecoderModel, a directory or a Hub id, saved by PyTorch or Flax. Or join two
    halves with --encoder and --decoder, to fine-tune later or to measure now; or two configurations, with
    --random-weights, for a study of latency. With --engines, MODEL may also be a bundle.

    Progress goes to stderr, the summary to stdout. Nothing is left at the output unless the verification passes.
    """
    if engines is not None and output is None and model is not None and is_there(Path(model) / MANIFEST):
        engines.prepare(model)  # nothing of the export runs: this needs no torch
        engines.run(model)
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output'. Only --engines for a bundle goes without it.")
    if engines is not None:
        engines.prepare()
        target = _target_of_engines(target)
    source = _Source(
        model=model,
        encoder=encoder,
        decoder=decoder,
        encoder_config=encoder_config,
        decoder_config=decoder_config,
        random_weights=random_weights,
        seed=seed,
        processor=processor,
        without=without,
        decoder_start_token_id=decoder_start_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        offline=local_files_only,
    )
    source.check()
    begin = time.perf_counter()
    progress = Progress(_STAGES)
    with _export_extra():
        from ..export_bundle import export
    _silence_libraries()
    try:
        options = PrecisionOptions(
            precision=precision,
            target=target,
            encoder_precision=encoder_precision,
            decoder_precision=decoder_precision,
            op_kinds=op_kinds,
            keep_float32=keep_float32,
            block_size=block_size,
            accuracy_level=accuracy_level,
        )
        limits = _limits(options, tolerance, min_agreement)
        progress("loading the model")
        composite = source.load()
        _warn_of_random_weights(composite)
        bundle = export(
            composite,
            output,
            precision=options,
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
    if engines is not None:
        engines.run(output)


@contextmanager
def _export_extra() -> Iterator[None]:
    """Within this context, report imports that fail on one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is needed to export: pip install 'speech-export[export,cpu]'"
        ) from error
    except ImportError as error:  # a part of a library is missing, or the memory for it
        raise click.ClickException(f"a library that exports need is installed, but fails to load: {error}") from error


def _target_of_engines(target: Target) -> Target:
    """Return the target of graphs for engines; `target` is the command line's, or its default."""
    if click.get_current_context().get_parameter_source("target") is ParameterSource.DEFAULT:
        return "tensorrt"
    if target != "tensorrt":
        raise click.UsageError(f"--engines are built of graphs for TensorRT: leave --target {target} out")
    return target


def _limits(precision: PrecisionOptions, tolerance: float | None, min_agreement: float | None) -> Limits | None:
    """Return the limits that are given, or None. A tolerance that is given holds however torch rounds."""
    given = {"logprob_difference": tolerance, "agreement": min_agreement}
    asked = {name: value for name, value in given.items() if value is not None}
    if tolerance is not None:
        asked["torch_roundings"] = 0.0
    return replace(QUANTIZED_LIMITS if precision.below_float32 else Limits(), **asked) if asked else None


@dataclass(frozen=True)
class _Source:
    """The options that say which model to load."""

    model: str | None
    encoder: str | None
    decoder: str | None
    encoder_config: str | None
    decoder_config: str | None
    random_weights: bool
    seed: int
    processor: str | None
    without: tuple[str, ...]
    decoder_start_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    revision: str | None
    token: str | None
    cache_dir: str | None
    offline: bool

    def check(self) -> None:
        """Check that the model is named in one way, and completely."""
        ways = ((self.model,), (self.encoder, self.decoder), (self.encoder_config, self.decoder_config))
        named = [way for way in ways if any(name is not None for name in way)]
        if len(named) != 1 or any(name is None for name in named[0]):
            raise click.UsageError(
                "give either MODEL, or both --encoder and --decoder, or both --encoder-config and --decoder-config"
            )
        if self.random_weights != (named[0] is ways[2]):
            raise click.UsageError(
                "configurations have no weights: --random-weights goes with --encoder-config and --decoder-config, "
                "and only with them"
            )
        if self.processor is not None and self.model is None:
            raise click.UsageError(
                "--processor goes with MODEL: the feature extractor of a pair is beside --encoder, its tokenizer "
                "beside --decoder"
            )

    def load(self) -> "Composite":
        from ..sources.checkpoint import load_checkpoint
        from ..sources.configs import load_configs
        from ..sources.hub import HubOptions
        from ..sources.pair import load_pair
        from ..sources.special_tokens import TokenIds

        hub = HubOptions(self.revision, self.token, self.cache_dir, self.offline)
        token_ids: TokenIds = {
            "decoder_start_token_id": self.decoder_start_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
        }
        if self.encoder and self.decoder:
            return load_pair(self.encoder, self.decoder, self.seed, hub, self.without, **token_ids)
        if self.encoder_config and self.decoder_config:
            return load_configs(self.encoder_config, self.decoder_config, self.seed, hub, **token_ids)
        return load_checkpoint(str(self.model), self.processor, hub, self.without, **token_ids)


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
