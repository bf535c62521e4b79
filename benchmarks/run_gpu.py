"""`make bench-gpu`: the reference shape on a GPU, ours with default options beside transformers in half precision."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import click

from compare import compare
from gpu_cases import REFERENCE
from gpu_results import write_results
from operator_profiles import profiles
from operators import Operator
from peers.protocol import Planned
from peers.registry import SINGLE, Contender
from prepare import ensure
from speech_export import export
from speech_runtime.backends.cuda.calls import Cuda
from speech_runtime.bench.measure import gpu_of, import_libraries
from speech_runtime.bench.options import Case
from speech_runtime.bundle.manifest import MANIFEST, Manifest
from speech_runtime.errors import SpeechError
from speech_runtime.system import Machine
from stages import say
from weightless import unpack

REPOSITORY = Path(__file__).resolve().parents[1]
CASES = (SINGLE, Case(10, 1, 1, 40), Case(30, 1, 5, 40), Case(10, 8, 5, 40), Case(30, 8, 5, 40))
"""Seconds of audio, utterances, beams, tokens; the first one is profiled."""
_PACKAGES = ("speech-export", "onnxruntime-gpu", "onnxruntime", "torch", "transformers", "numpy")
_DIRECTORY = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True),
    help="Bundle, or an archive of `make gpu-bundles`. [default: its archive of the reference shape, or a new export]",
)
@click.option(
    "--model",
    type=_DIRECTORY,
    help="The same model for transformers; without weights it gets random ones. [default: the reference shape]",
)
@click.option("--device", default="cuda", show_default=True, help="GPU, or cpu to try the benchmark itself.")
@click.option("--dtype", default="float16", show_default=True, help="Precision of transformers.")
@click.option("--build", type=click.Path(path_type=Path), default=REPOSITORY / "build" / "bench", help="For models.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=REPOSITORY / "benchmarks" / "results" / "gpu",
    help="For what is found. [default: benchmarks/results/gpu]",
)
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="How often each loads and runs.")
@click.option("--repeats", type=click.IntRange(1), default=8, show_default=True, help="Runs of each case in a round.")
@click.option("--without", multiple=True, help="Contender to leave out, by name; repeatable.")
def main(
    bundle: Path | None,
    model: Path | None,
    device: str,
    dtype: str,
    build: Path,
    results: Path,
    rounds: int,
    repeats: int,
    without: tuple[str, ...],
) -> None:
    """Compare latency on a GPU with transformers, profile the graphs, and write a table named after the GPU.

    The weights of the reference shape are random, so they need not travel: `make gpu-bundles` exports it on a machine
    without a GPU, to an archive of a few hundred KB in build/gpu-bundles.
    """
    gpu = _gpu(device)
    ours = _bundle(bundle, build)
    theirs = model or _made("configuration", build / "reference-configuration")
    chosen = [each for each in contenders(ours, theirs, device, dtype, repeats) if each.name not in without]
    machine = Machine.here(_PACKAGES, gpu=None if gpu is None else gpu.name)
    found = compare(chosen, rounds, _cores(), say)
    say("where the time goes")
    manifest = Manifest.read(ours)
    measured = f"{manifest.source}, {manifest.precision}"
    click.echo(write_results(results, machine, measured, found, CASES, _operators(ours, device)))


def contenders(bundle: Path, model: Path, device: str, dtype: str, repeats: int) -> list[Contender]:
    """Ours with default options, and transformers as it comes and at its fastest."""
    cases, torch = tuple(Planned(case, repeats) for case in CASES), "peers.transformers_torch"
    eager, variant = f"transformers {dtype}", f"{dtype}@{device}"
    return [
        Contender(eager, torch, model, cases, variant),
        Contender(f"{eager}, static cache, torch.compile", torch, model, cases, f"{variant}+static+compile"),
        Contender("speech-export", "peers.ours", bundle, cases, device),
    ]


def _gpu(device: str) -> Cuda | None:
    """Return the GPU, or None for the CPU.

    Raises:
        ClickException: There is no GPU, or a library for it is missing.
    """
    try:
        import_libraries(device)
        gpu = gpu_of(device)
    except SpeechError as error:
        raise click.ClickException(f"this benchmark needs an NVIDIA GPU: {error}") from error
    if gpu is None and device != "cpu":
        raise click.ClickException("cuda-python knows the name of the GPU, and is missing: pip install cuda-bindings")
    return gpu


def _bundle(given: Path | None, build: Path) -> Path:
    """Return the directory of a bundle, which is unpacked or exported if need be."""
    archive = given or REFERENCE.archive
    if archive.is_file():
        target = build / archive.name.removesuffix("".join(archive.suffixes))
        say(f"unpacking {archive}")
        shutil.rmtree(target, ignore_errors=True)
        return unpack(archive, target)
    if given is None:
        target = build / "reference-cuda-fp16"
        if not target.exists():
            say(f"exporting the reference shape: {target}")
            export(REFERENCE.model(), target, **REFERENCE.settings)
        return target
    if not (given / MANIFEST).exists():
        raise click.ClickException(f"{given} has no {MANIFEST}, so it is not a bundle")
    return given


def _cores() -> int:
    return Machine.here(()).cores


def _made(recipe: str, directory: Path) -> Path:
    if problem := ensure(recipe, directory):
        raise click.ClickException(f"{directory} cannot be made: {problem}")
    return directory


def _operators(bundle: Path, device: str) -> dict[str, Sequence[Operator]]:
    try:
        return dict(profiles(bundle, device, CASES[0]))
    except RuntimeError as error:
        say(str(error))
        return {}


if __name__ == "__main__":
    main()
