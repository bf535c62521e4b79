"""`--engines` of the `speech-export` command: build TensorRT engines after an export, or for an existing bundle."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.core import ParameterSource

from speech_runtime import SpeechError
from speech_runtime.backends.tensorrt.library import NAMES, TensorRt, import_tensorrt
from speech_runtime.backends.tensorrt.supported_gpus import RTX_GPUS
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.manifest import ENGINES, EngineSet, Flavor, Manifest
from speech_runtime.bundle.profile_limits import ProfileLimits
from speech_runtime.cli.console import complain
from speech_runtime.cli.flags import FLOAT, INTEGER
from speech_runtime.system import MIB

from ..precision.options import Target
from ..tensorrt.add_engines import add_engines, check_target
from ..tensorrt.build import BuildOptions, OnStep
from .console import Progress

Command = TypeVar("Command", bound=Callable[..., Any])

PREFIX = "trt_"
_LIMITS: dict[str, tuple[Any, str]] = {
    "batch": (INTEGER, "Utterances of a batch"),
    "beams": (INTEGER, "Beams of an utterance"),
    "seconds": (FLOAT, "Seconds of audio"),
    "tokens": (INTEGER, "Tokens of a sequence"),
    "step_tokens": (INTEGER, "Tokens of one step"),
}


def engine_flags(command: Command) -> Command:
    """Add `--engines` and its options to a command, which gets them as `engines`: an `EngineBuild`, or None."""

    @functools.wraps(command)
    def wrapper(engines: bool, **others: Any) -> None:
        flags = {name: others.pop(name) for name in list(others) if name.startswith(PREFIX)}
        given = {name: value for name, value in flags.items() if value not in (None, ())}
        if given and not engines:
            raise click.UsageError(f"--{next(iter(given)).replace('_', '-')} goes with --engines")
        command(engines=EngineBuild(given) if engines else None, **others)

    wrapped: Any = wrapper
    for option in reversed(_command_options()):
        wrapped = option(wrapped)
    result: Command = wrapped
    return result


class EngineBuild:
    """A request to build the engines of a bundle."""

    def __init__(self, given: dict[str, Any]) -> None:
        """Take the options that are given, by name with the prefix `trt_`."""
        named = {name.removeprefix(PREFIX): value for name, value in given.items()}
        self._flavor: Flavor | None = named.pop("flavor", None)
        self._limits = {name: named.pop(name) for name in _LIMITS if name in named}
        if "compute_capability" in named:
            named["compute_capabilities"] = named.pop("compute_capability")
        self._others = named
        self._tensorrt: TensorRt | None = None
        self._options = BuildOptions()

    def prepare(self, bundle: str | None = None) -> None:
        """Check the options and import TensorRT, before an export that may take minutes.

        Args:
            bundle: Directory of an existing bundle, whose target is checked too.
        """
        try:
            if bundle is not None:
                check_target(Path(bundle), Manifest.read(Path(bundle)))
            self._tensorrt = import_tensorrt(self._flavor)
            self._options = BuildOptions(limits=ProfileLimits(**self._limits), **self._others)
            self._options.check(self._tensorrt)
        except SpeechError as error:
            raise click.ClickException(str(error)) from error

    def run(self, directory: str) -> None:
        """Build the engines of the bundle in `directory`, and print a summary; `prepare` comes first."""
        assert self._tensorrt is not None  # noqa: S101 - prepare() was called
        begin, progress = time.perf_counter(), Progress(len(GRAPHS))

        def on_graph(graph: str) -> OnStep:
            progress(f"building the engine of {graph}")
            return progress.step

        try:
            built = add_engines(directory, self._tensorrt, self._options, on_graph)
        except SpeechError as error:
            complain()
            raise click.ClickException(
                f"{error}\nThe bundle {directory} is unchanged. To try again: speech-export {directory} --engines"
            ) from error
        progress.end()
        click.echo(_summary(directory, built, time.perf_counter() - begin))


def target_for_engines(target: Target) -> Target:
    """Return the target of graphs for engines; `target` is the value of `--target` or its default."""
    if click.get_current_context().get_parameter_source("target") is ParameterSource.DEFAULT:
        return "tensorrt"
    if target != "tensorrt":
        raise click.UsageError(f"--engines needs graphs for TensorRT: leave --target {target} out")
    return target


def _command_options() -> list[Callable[[Any], Any]]:
    defaults = vars(ProfileLimits())
    return [
        click.option("--engines", is_flag=True, help="Build TensorRT engines too; for MODEL itself if it is a bundle."),
        click.option(
            "--trt-flavor", type=click.Choice(get_args(Flavor)), help="TensorRT library. [default: the installed one]"
        ),
        *(
            click.option(
                f"--{PREFIX}{name}".replace("_", "-"),
                type=kind,
                nargs=3,
                metavar="MIN TYPICAL MAX",
                help=f"{meaning}. [default: {' '.join(f'{size:g}' for size in defaults[name])}]",
            )
            for name, (kind, meaning) in _LIMITS.items()
        ),
        click.option(
            "--trt-weights",
            type=click.Choice(["included", "stripped"]),
            help="Keep the weights in the engines, or read them from the graphs at each load. [default: included]",
        ),
        click.option(
            "--trt-tf32", is_flag=True, default=None, help="Round float32 products to TF32 (10-bit mantissa)."
        ),
        click.option(
            "--trt-timing-cache", type=click.Path(path_type=Path), help="File with kernel timings; TensorRT only."
        ),
        click.option(
            "--trt-compute-capability",
            multiple=True,
            help="Compute capability of a GPU to build for, such as 8.9; repeatable; TensorRT-RTX only, which does not "
            f"support 9.0 (Hopper) and 10.x. [default: {RTX_GPUS}]",
        ),
    ]


def _summary(directory: str, built: EngineSet, seconds: float) -> str:
    lines = [f"{name:<24}{file.size / MIB:>10.2f} MiB" for name, file in built.files.items()]
    size = sum(file.size for file in built.files.values())
    gpus = ", ".join(built.compute_capabilities) or RTX_GPUS
    limits = built.limits
    lines += [
        f"{'all engines':<24}{size / MIB:>10.2f} MiB   {Path(directory) / ENGINES / built.directory}",
        f"{'built in':<24}{seconds:>10.1f} s",
        f"{NAMES[built.flavor]} {built.version}, for GPUs of compute capability {gpus}",
        f"up to {limits.batch[2]} × {limits.seconds[2]:g} s, {limits.beams[2]} beams, {limits.tokens[2]} tokens",
    ]
    return "\n".join(lines)
