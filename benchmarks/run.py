"""`make bench` and `make bench-quick`: run all comparisons and measurements, and write their tables and plots."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from compare import Comparison, compare
from floors import LONG_PREFIX, Evidence
from limits import Limits, measure_limits
from operators import Operator, operators
from peers.protocol import Planned
from peers.registry import (
    OURS_FLOAT32,
    OURS_INT8,
    PLAIN_INT8,
    SINGLE,
    Contender,
    digits_contenders,
    reference_contenders,
)
from prepare import ensure
from results import Results
from speech_runtime.bench.measure import Measurement
from speech_runtime.bench.options import QUICK, BenchOptions
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, ENCODER
from speech_runtime.bundle.loading import Bundle
from speech_runtime.system import Machine
from stages import Bundles, error_rates, exported, prepared, say, swept

REPOSITORY = Path(__file__).resolve().parents[1]
DIGITS = REPOSITORY / "examples" / "digits"
CLIP = DIGITS / "audio" / "10-espeak-eight-digits.wav"
HIDDEN = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "CT2_FORCE_CPU_ISA": "AVX2",
}
"""Environment variables that make the peers run as on a CPU without AMX and AVX-512."""
_ASKS_THE_PROCESSOR = ("peers.ours", "peers.plain_onnx")

_FULL = BenchOptions(tokens=(40, LONG_PREFIX), batch=(1, 8), budget=8.0)
_SHORT = BenchOptions(seconds=(10.0, 1.0, 30.0), batch=(1,), budget=6.0, least=2)
"""Cases of the bundle that has floors, and of the other one."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="The bundled model only, and few runs.")
@click.option("--build", type=click.Path(path_type=Path), default=REPOSITORY / "build" / "bench", help="For models.")
@click.option("--results", type=click.Path(path_type=Path), help="For what is found. [default: benchmarks/results]")
@click.option("--float32-bundle", type=click.Path(path_type=Path), help="Of the reference shape, instead of an export.")
@click.option("--int8-bundle", type=click.Path(path_type=Path), help="Likewise.")
@click.option("--rounds", type=click.IntRange(1), help="How often each contender loads and runs. [default: 3]")
@click.option("--only", multiple=True, help="Contender to compare, by name; repeatable. [default: all]")
def main(
    quick: bool,
    build: Path,
    results: Path | None,
    float32_bundle: Path | None,
    int8_bundle: Path | None,
    rounds: int | None,
    only: tuple[str, ...],
) -> None:
    """Compare with the peers, measure by length and beams, hold against the floors, and draw."""
    threads, rounds = Machine.here().cores, rounds or 3
    limits = measure_limits(threads)
    default = build / "results" if quick else REPOSITORY / "benchmarks" / "results"
    out = Results(results or default, limits)

    def chosen(contenders: list[Contender]) -> list[Contender]:
        return [contender for contender in contenders if not only or contender.name in only]

    evidence, comparisons = _digits(build, out, rounds, threads, chosen, quick=quick)
    if not quick:
        checkpoint = build / "checkpoint"
        if (problem := ensure("checkpoint", checkpoint)) is not None:
            raise click.ClickException(f"{checkpoint} cannot be made: {problem}")
        bundles = exported(
            checkpoint, float32_bundle or build / "reference-fp32", int8_bundle or build / "reference-int8"
        )
        contenders = chosen(reference_contenders(build, bundles.float32, bundles.int8, repeats=2))
        found = _compare_reference(prepared(contenders, bundles), out, rounds, threads)
        out.operators(_operators(build, bundles, threads))
        sweeps = _sweep_reference(bundles, limits, json.loads((checkpoint / "config.json").read_text()), out)
        ours, bundle = next(iter(bundles.by_name.items()))
        sizes = None if bundles.why_not else (Bundle.open(bundles.float32).size, Bundle.open(bundle).size)
        evidence = replace(evidence, ours=ours, reference=found, sweep=sweeps[ours], sizes=sizes)
        comparisons["reference shape"] = found
    click.echo(out.end(evidence, comparisons))


def _digits(
    build: Path, out: Results, rounds: int, threads: int, chosen: Any, *, quick: bool
) -> tuple[Evidence, dict[str, Comparison]]:
    checkpoint = DIGITS / "checkpoint"
    bundles = exported(checkpoint, build / "digits-fp32", build / "digits-int8")
    contenders = prepared(chosen(digits_contenders(checkpoint, bundles.float32, bundles.int8, repeats=100)), bundles)
    found = compare(contenders, rounds, threads, say, audio=CLIP)
    ours, bundle = next(iter(bundles.by_name.items()))
    sweep = swept(bundle, QUICK if quick else BenchOptions(budget=5.0))
    rates = error_rates(bundles)
    out.digits(found, sweep, rates)
    both = (rates[OURS_FLOAT32], rates[OURS_INT8]) if len(rates) == 2 else None
    return Evidence(ours, {}, found, (), None, both), {"bundled model": found}


def _compare_reference(contenders: list[Contender], out: Results, rounds: int, threads: int) -> Comparison:
    found = compare(contenders, rounds, threads, say)
    say("once more, with AMX and AVX-512 hidden")
    # Once each: without its instructions bfloat16 takes a minute an utterance.
    once = Planned(SINGLE, repeats=1)
    peers = [
        replace(contender, cases=(once,), warmups=0)
        for contender in contenders
        if contender.module not in _ASKS_THE_PROCESSOR and "compile" not in contender.variant
    ]
    hidden = compare(peers, 1, threads, say, environment=HIDDEN)
    out.reference(found, hidden)
    return found


def _operators(build: Path, bundles: Bundles, threads: int) -> dict[str, dict[str, list[Operator]]]:
    """Profile the graphs of the reference shape, quantised by hand and as exported."""
    directories = {PLAIN_INT8: build / "plain-onnx-int8", **bundles.by_name}
    found: dict[str, dict[str, list[Operator]]] = {}
    for graph in (ENCODER, DECODER_WITH_PAST):
        paths = {name: directory / f"{graph}.onnx" for name, directory in directories.items()}
        say(f"where the time goes: {graph}")
        found[graph] = {
            name: operators(path, threads) for name, path in paths.items() if name != OURS_FLOAT32 and path.exists()
        }
    return found


def _sweep_reference(
    bundles: Bundles, limits: Limits, config: dict[str, Any], out: Results
) -> dict[str, list[Measurement]]:
    sweeps = {
        name: swept(bundle, _SHORT if number else _FULL)
        for number, (name, bundle) in enumerate(bundles.by_name.items())
    }
    lengths = {found.case.seconds for found in next(iter(sweeps.values()))}
    encoder = {seconds: limits.encoder_seconds(config["encoder"], seconds) for seconds in lengths}
    steps = {name: limits.step_seconds(_weights(bundle)) for name, bundle in bundles.by_name.items()}
    out.sweeps(sweeps, encoder, steps)
    return sweeps


def _weights(bundle: Path) -> int:
    """Bytes of the decoder's graph, all of which a step reads."""
    files = Bundle.open(bundle, check_hashes=False).manifest.files
    return sum(file.size for name, file in files.items() if name.startswith(f"{DECODER_WITH_PAST}.onnx"))


if __name__ == "__main__":
    main()
