"""The `speech-bench` command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..atomic.writing import write_output
from ..backends.options import DEVICES, ENGINES
from ..bench.measure import gpu_of
from ..bench.options import QUICK, BenchOptions
from ..bench.report import as_json, as_markdown
from ..bench.runner import plan, run
from ..bench.worker import Order
from ..bundle.safe_files import is_directory
from ..errors import SpeechError
from ..system import Machine
from .console import complain, log_on_stderr
from .entry import exit_when_interrupted
from .flags import FLOAT, INTEGER, cuda_graphs_flag, number_list, with_flags

_DEFAULTS = BenchOptions()


def _shown(name: str) -> str:
    return ",".join(f"{value:g}" for value in getattr(_DEFAULTS, name))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundles", metavar="BUNDLE...", type=click.Path(), nargs=-1, required=True)
@click.option("--seconds", type=number_list(FLOAT), help=f"Lengths of audio. [default: {_shown('seconds')}]")
@click.option("--batch", type=number_list(INTEGER), help=f"Utterances in a batch. [default: {_shown('batch')}]")
@click.option("--beams", type=number_list(INTEGER), help=f"Beams of the search. [default: {_shown('beams')}]")
@click.option("--tokens", type=number_list(INTEGER), help=f"New tokens, exactly. [default: {_shown('tokens')}]")
@click.option(
    "--threads",
    type=number_list(INTEGER),
    help=f"Threads of one operator; 0 is all cores. [default: {_shown('threads')}]",
)
@click.option("--repeats", type=INTEGER, help=f"Largest number of runs of a case. [default: {_DEFAULTS.repeats}]")
@click.option(
    "--budget", type=FLOAT, help=f"Seconds after which a case gets no more runs. [default: {_DEFAULTS.budget:g}]"
)
@click.option("--device", help=f"{', '.join(DEVICES)}; the second GPU is cuda:1, for example. [default: cpu]")
@cuda_graphs_flag
@click.option("--audio", type=click.Path(), help="File to transcribe instead of noise; its length replaces --seconds.")
@click.option("--quick", is_flag=True, help="Fewer cases and runs; other flags override it.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write all measurements to this file.")
@click.version_option(package_name="speech-export")
@exit_when_interrupted()
@log_on_stderr("speech_runtime", start="\n")
def main(bundles: tuple[str, ...], quick: bool, json_file: str | None, **given: Any) -> None:
    """Measure time, throughput, memory, load time and size of each BUNDLE on this machine.

    The first value of each list is the reference. Each list is varied while the others stay at the reference. Each case
    runs in its own process, bundles in turn. A run generates exactly --tokens tokens, with the bundle's other settings.

    A Markdown table goes to stdout, progress to stderr.
    """
    if json_file is not None and not is_directory(Path(json_file).absolute().parent):
        raise click.UsageError(f"--json {json_file}: there is no directory {Path(json_file).parent}; make it first")
    try:
        changes = {name: value for name, value in given.items() if value is not None}
        if "repeats" in changes:
            changes["least"] = min(changes["repeats"], (QUICK if quick else _DEFAULTS).least)
        if str(changes.get("device")).startswith(ENGINES):
            changes.setdefault("threads", (0,))
        options = replace(QUICK if quick else _DEFAULTS, **changes)
        orders = plan(bundles, options)
        count = iter(range(1, len(orders) + 1))

        def progress(order: Order) -> None:
            complain(f"[{next(count)}/{len(orders)}] {order.bundle}: {order.case}")

        measurements, gpu = list(run(orders, progress)), gpu_of(options.device)
        machine = Machine.here(gpu=None if gpu is None else gpu.name)
    except SpeechError as error:
        raise click.ClickException(with_flags(str(error), {"max_new_tokens": "--tokens"})) from error
    click.echo(as_markdown(measurements, machine))  # first: a file that cannot be written must not cost the minutes
    if json_file is not None:
        text = json.dumps(as_json(measurements, machine), indent=2, ensure_ascii=False)
        try:
            write_output(Path(json_file), text + "\n")
        except OSError as error:
            raise click.FileError(json_file, f"{error.strerror}; give another file (--json)") from error
