"""`make bench-gpu`: the reference shape on a GPU, ours with default options beside transformers in half precision."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import click

from compare import compare
from gpu_results import write_results
from operator_profiles import profiles
from operators import Operator
from peers.protocol import Planned
from peers.registry import SINGLE, Contender
from prepare import ensure, export_bundle
from speech_runtime.backends.cuda.calls import Cuda
from speech_runtime.bench.measure import gpu_of, import_libraries
from speech_runtime.bench.options import Case
from speech_runtime.bundle.manifest import MANIFEST, Manifest
from speech_runtime.errors import SpeechError
from speech_runtime.system import Machine
from stages import say
from weightless import LAYOUT, fill

REPOSITORY = Path(__file__).resolve().parents[1]
CASES = (SINGLE, Case(10, 1, 1, 40), Case(30, 1, 5, 40), Case(10, 8, 5, 40), Case(30, 8, 5, 40))
"""Seconds of audio, utterances, beams, tokens; the first one is profiled."""
_PACKAGES = ("speech-export", "onnxruntime-gpu", "onnxruntime", "torch", "transformers", "numpy")
_DIRECTORY = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--bundle",
    type=_DIRECTORY,
    help="Bundle in half precision, or what `weightless.py pack` made of one. [default: export the reference shape]",
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

    The weights of the reference shape are random, so they need not travel: export it on a machine without a GPU, and
    carry what `python benchmarks/weightless.py pack` makes of the bundle.
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
    if given is None:
        checkpoint, bundle = _made("checkpoint", build / "checkpoint"), build / "reference-cuda-fp16"
        say(f"exporting the reference shape: {bundle}")
        if problem := export_bundle(checkpoint, bundle, "fp16", "cuda"):
            raise click.ClickException(f"{bundle} cannot be exported: {problem}")
        return bundle
    if (given / LAYOUT).exists():
        bundle = build / f"{given.name}-filled"
        say(f"making up weights: {bundle}")
        shutil.rmtree(bundle, ignore_errors=True)
        bundle.parent.mkdir(parents=True, exist_ok=True)
        fill(given, bundle)
        return bundle
    if not (given / MANIFEST).exists():
        raise click.ClickException(f"{given} is neither a bundle ({MANIFEST}) nor one without weights ({LAYOUT})")
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
