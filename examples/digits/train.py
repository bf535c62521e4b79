"""Train the digits model from scratch: `python examples/digits/train.py --output checkpoint`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch
import torch.distributed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.multiprocessing.spawn import spawn
from transformers.utils.logging import disable_progress_bar

from batches import SyntheticSize, load_training_data, training_batches
from corpus import joined_strings, load_recordings
from synthetic import held_out_strings
from trainer import Trainer
from training_state import export_checkpoint, load_state, save_state

_REPOSITORY = Path(__file__).resolve().parents[2]
_REPORT_EVERY = 50
_DEV_SEED = 5
_DEV_REAL, _DEV_SYNTHETIC = 96, 40


@dataclass(frozen=True)
class Options:
    """The options of the command, which every process gets; `batch_seconds` of speech a step each."""

    archive: Path
    output: Path
    work: Path
    steps: int
    seed: int
    processes: int
    batch_seconds: float
    synthetic: SyntheticSize
    save_every: int
    resume: bool


def run(options: Options, process: int, console: Console) -> None:
    """Train from the last saved step to the last one."""
    trainer = Trainer(options.steps, options.seed)
    done = load_state(options.work, trainer.parts, trainer.optimizer) if options.resume else 0
    data = load_training_data(options.archive, options.work, options.synthetic, options.seed, 1)
    dev_real = joined_strings(load_recordings(options.archive, "dev"), _DEV_REAL, _DEV_SEED)
    dev_synthetic = held_out_strings(_DEV_SYNTHETIC, _DEV_SEED)
    batches = training_batches(data, options.seed, process, done, options.batch_seconds)
    started, started_at = time.monotonic(), done
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("training", total=options.steps, completed=done)
        for number in range(done, options.steps):
            transcription, alignment = trainer.step(number, next(batches))
            done = number + 1
            progress.update(bar, completed=done)
            if done % _REPORT_EVERY == 0:
                pace = (done - started_at) / (time.monotonic() - started)
                console.print(f"step {done}: loss {transcription:.4f}, alignment {alignment:.4f}, {pace:.2f} steps/s")
            if process == 0 and (done % options.save_every == 0 or done == options.steps):
                save_state(options.work, done, trainer.parts, trainer.optimizer)
                export_checkpoint(options.output, trainer.model, trainer.feature_extractor, trainer.tokenizer)
                real, synthetic = trainer.dev_error_rates(dev_real, dev_synthetic)
                console.print(f"step {done}: dev WER {real:.2%} recordings, {synthetic:.2%} synthetic")
            # The others wait: a step needs the gradients of all.
            torch.distributed.barrier()


def _worker(process: int, options: Options, meeting_point: str) -> None:
    # One thread a process: two processes with one are steadier than one process with two.
    torch.set_num_threads(1)
    disable_progress_bar()
    torch.distributed.init_process_group(
        "gloo",
        init_method=meeting_point,
        rank=process,
        world_size=options.processes,
        timeout=timedelta(hours=1),
    )
    run(options, process, Console(quiet=process > 0))
    torch.distributed.destroy_process_group()


@click.command()
@click.option(
    "--archive",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=_REPOSITORY / "../shared/data/fsdd.tar.gz",
    help="Archive of the Free Spoken Digit Dataset.",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder of the checkpoint.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=_REPOSITORY / "examples/digits/cache",
    help="Folder of the synthetic speech and of the state to resume from.",
)
@click.option("--steps", default=4800, show_default=True, help="Updates of the weights.")
@click.option("--seed", default=1, show_default=True, help="Seed of the weights and of the data.")
@click.option("--processes", default=2, show_default=True, help="Single-threaded processes, one a core.")
@click.option("--batch-seconds", default=28.0, show_default=True, help="Speech in each process's batch.")
@click.option(
    "--synthetic-strings",
    # Fewer might hold no string as short as the first steps want.
    type=click.IntRange(min=200),
    default=6000,
    show_default=True,
    help="Synthetic strings to make.",
)
@click.option(
    "--synthetic-speakers",
    type=click.IntRange(min=1),
    default=120,
    show_default=True,
    help="Voices saying single digits.",
)
@click.option("--save-every", default=200, show_default=True, help="Steps from one save to the next.")
@click.option("--resume", is_flag=True, help="Go on from the saved state, if there is one.")
def main(
    archive: Path,
    output: Path,
    work: Path,
    steps: int,
    seed: int,
    processes: int,
    batch_seconds: float,
    synthetic_strings: int,
    synthetic_speakers: int,
    save_every: int,
    resume: bool,
) -> None:
    """Train the digits model and write its checkpoint."""
    work.mkdir(parents=True, exist_ok=True)
    size = SyntheticSize(synthetic_strings, synthetic_speakers)
    options = Options(archive, output, work, steps, seed, processes, batch_seconds, size, save_every, resume)
    Console().print("Preparing the synthetic speech")
    load_training_data(archive, work, size, seed, processes)
    with TemporaryDirectory() as folder:
        meeting_point = f"file://{folder}/meeting-point"
        arguments = (options, meeting_point)
        spawn(_worker, args=arguments, nprocs=processes)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
