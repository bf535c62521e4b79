"""The stages of a benchmark run: the models that are made, and the measurements on them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from peers.registry import OURS_FLOAT32, OURS_INT8, Contender
from prepare import ensure, export_bundle
from speech_runtime.bench.measure import Measurement
from speech_runtime.bench.options import BenchOptions
from speech_runtime.bench.runner import plan, run
from word_errors import word_error_rates


@dataclass(frozen=True)
class Bundles:
    """Bundles of one model in float32 and int8; `why_not` is the reason if there is no int8 bundle."""

    float32: Path
    int8: Path
    why_not: str | None

    @property
    def by_name(self) -> dict[str, Path]:
        """Those that there are, by the contenders' names; the one that the floors are about first."""
        both = {OURS_INT8: self.int8, OURS_FLOAT32: self.float32}
        return {name: path for name, path in both.items() if name == OURS_FLOAT32 or not self.why_not}


def say(what: str) -> None:
    """Progress, on stderr."""
    click.echo(what, err=True)


def exported(checkpoint: Path, float32: Path, int8: Path) -> Bundles:
    """Export `checkpoint` in both precisions where a bundle is not there yet.

    Raises:
        ClickException: there is no float32 bundle, and none can be made.
    """
    for precision, bundle in (("fp32", float32), ("int8", int8)):
        say(f"exporting {checkpoint.parent.name}/{checkpoint.name}, {precision}: {bundle.name}")
        problem = export_bundle(checkpoint, bundle, precision)
        if problem is not None and precision == "fp32":
            raise click.ClickException(f"{bundle} cannot be exported: {problem}")
    return Bundles(float32, int8, problem)


def prepared(contenders: Sequence[Contender], bundles: Bundles) -> list[Contender]:
    """The same, with what they load made; who cannot have it knows why."""
    ready = []
    for contender in contenders:
        why_not = bundles.why_not if contender.name == OURS_INT8 else None
        if contender.recipe and not contender.uninstalled:
            say(f"preparing {contender.recipe}")
            why_not = ensure(contender.recipe, contender.model)
        ready.append(replace(contender, why_not=why_not))
    return ready


def swept(bundle: Path, options: BenchOptions) -> list[Measurement]:
    """Measure a bundle with `speech-bench`; it is named after its directory."""
    found = run(plan([bundle], options), lambda order: say(f"{bundle.name}: {order.case}"))
    return [replace(measurement, bundle=bundle.name) for measurement in found]


def error_rates(bundles: Bundles) -> dict[str, float]:
    """Word error rates by the contenders' names; empty, and said so, where the recordings are not there."""
    say("word error rates")
    try:
        return word_error_rates(bundles.by_name)
    except FileNotFoundError as error:
        say(f"word error rates are not measured: {error}")
        return {}
