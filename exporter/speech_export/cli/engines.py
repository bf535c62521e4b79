"""`--engines` of the `speech-export` command: after an export, or for a bundle that is there already."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.core import ParameterSource

from speech_runtime import SpeechError
from speech_runtime.backends.tensorrt.library import NAMES, TensorRt, import_tensorrt
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.manifest import ENGINES, MANIFEST, EngineSet, Flavor, Manifest
from speech_runtime.bundle.profile_limits import ProfileLimits
from speech_runtime.bundle.safe_files import is_there
from speech_runtime.cli.console import complain
from speech_runtime.system import MIB

from ..tensorrt.add_engines import add_engines, check_target
from ..tensorrt.build import BuildOptions, OnStep
from .progress import Progress

Command = TypeVar("Command", bound=Callable[..., Any])

_PREFIX = "trt_"
_LIMITS: dict[str, tuple[Any, str]] = {
    "batch": (int, "Utterances together"),
    "beams": (int, "Beams of each"),
    "seconds": (float, "Seconds of audio"),
    "tokens": (int, "Tokens of a sequence"),
    "step-tokens": (int, "Tokens of one step"),
}


def engine_flags(command: Command) -> Command:
    """Add `--engines` and what goes with it to the command that exports.

    `speech-export BUNDLE --engines` runs nothing of the export, so that it needs no torch. With a model, the graphs are
    for TensorRT: those for the CPU have operations that it does not know.
    """

    @functools.wraps(command)
    def wrapper(engines: bool, output: str | None, model: str | None, **others: Any) -> None:
        flags = {name: others.pop(name) for name in list(others) if name.startswith(_PREFIX)}
        given = {name: value for name, value in flags.items() if value not in (None, ())}
        if given and not engines:
            raise click.UsageError(f"--{next(iter(given)).replace('_', '-')} goes with --engines")
        is_bundle = engines and output is None and model is not None and is_there(Path(model) / MANIFEST)
        if output is None and not is_bundle:
            raise click.UsageError("Missing option '-o' / '--output'. Only --engines for a bundle goes without it.")
        try:
            if is_bundle:
                check_target(Path(str(model)), Manifest.read(Path(str(model))))
            tensorrt = import_tensorrt(given.get("trt_flavor")) if engines else None
            options = _options(given)
            if tensorrt is not None:
                options.check(tensorrt)
        except SpeechError as error:  # before an export that may take minutes
            raise click.ClickException(str(error)) from error
        if engines and not is_bundle:
            others["target"] = _target(others["target"])
        if not is_bundle:
            command(output=output, model=model, **others)
        if tensorrt is not None:
            _build(str(model if is_bundle else output), tensorrt, options)

    wrapped: Any = wrapper
    for option in reversed(_options_of_command()):
        wrapped = option(wrapped)
    result: Command = wrapped
    return result


def _target(target: str) -> str:
    """What the graphs of engines are for, if `target` is what the command line says, or its default."""
    if click.get_current_context().get_parameter_source("target") is ParameterSource.DEFAULT:
        return "tensorrt"
    if target != "tensorrt":
        raise click.UsageError(f"--engines are built of graphs for TensorRT: leave --target {target} out")
    return target


def _options_of_command() -> list[Callable[[Any], Any]]:
    defaults = ProfileLimits()
    return [
        click.option(
            "--engines",
            is_flag=True,
            help="Build TensorRT engines too; of a bundle that is there already, if MODEL is one.",
        ),
        click.option(
            "--trt-flavor", type=click.Choice(get_args(Flavor)), help="Library to build with. [default: what is there]"
        ),
        *(
            click.option(
                f"--{_PREFIX}{name}".replace("_", "-"),
                type=kind,
                nargs=3,
                metavar="LEAST USUAL MOST",
                help=f"{meaning}. [default: {' '.join(f'{size:g}' for size in _default(defaults, name))}]",
            )
            for name, (kind, meaning) in _LIMITS.items()
        ),
        click.option(
            "--trt-weights",
            type=click.Choice(["included", "stripped"]),
            help="Whether engines hold the weights, or take them from the graphs when loaded. [default: included]",
        ),
        click.option("--trt-tf32", is_flag=True, default=None, help="Round float32 products to 10 bits of mantissa."),
        click.option("--trt-timing-cache", type=click.Path(path_type=Path), help="File of times of kernels; TensorRT."),
        click.option(
            "--trt-compute-capability",
            multiple=True,
            help="Of a GPU to build for, such as 8.9; repeatable. TensorRT-RTX; [default: all from 8.0]",
        ),
    ]


def _default(limits: ProfileLimits, name: str) -> tuple[float, ...]:
    value: tuple[float, ...] = getattr(limits, name.replace("-", "_"))
    return value


def _options(given: dict[str, Any]) -> BuildOptions:
    named = {name.removeprefix(_PREFIX): value for name, value in given.items()}
    limits = {name.replace("-", "_") for name in _LIMITS} & named.keys()
    names = {
        "weights": "weights",
        "tf32": "tf32",
        "timing_cache": "timing_cache",
        "compute_capability": "compute_capabilities",
    }
    return BuildOptions(
        limits=ProfileLimits(**{name: named[name] for name in limits}),
        **{field: named[name] for name, field in names.items() if name in named},
    )


def _build(directory: str, tensorrt: TensorRt, options: BuildOptions) -> None:
    begin, progress = time.perf_counter(), Progress(len(GRAPHS))

    def on_graph(graph: str) -> OnStep:
        progress(f"building the engine of {graph}")
        return progress.step

    try:
        built = add_engines(directory, tensorrt, options, on_graph)
    except SpeechError as error:
        complain()
        raise click.ClickException(
            f"{error}\nThe bundle {directory} is as it was. To try again: speech-export {directory} --engines"
        ) from error
    progress.end()
    click.echo(_summary(directory, built, time.perf_counter() - begin))


def _summary(directory: str, built: EngineSet, seconds: float) -> str:
    lines = [f"{name:<24}{file.size / MIB:>10.2f} MiB" for name, file in built.files.items()]
    size = sum(file.size for file in built.files.values())
    gpus = ", ".join(built.compute_capabilities) or "8.0 and later"
    limits = built.limits
    lines += [
        f"{'all engines':<24}{size / MIB:>10.2f} MiB   {Path(directory) / ENGINES / built.directory}",
        f"{'built in':<24}{seconds:>10.1f} s",
        f"{NAMES[built.flavor]} {built.version}, for GPUs of compute capability {gpus}",
        f"up to {limits.batch[2]} × {limits.seconds[2]:g} s, {limits.beams[2]} beams, {limits.tokens[2]} tokens",
    ]
    return "\n".join(lines)
