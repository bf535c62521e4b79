"""Plots: bars against the peers, and latency against length and beams with the machine's limits drawn in."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from compare import Comparison, Metric
from peers.registry import SINGLE
from speech_runtime.bench.measure import Measurement
from tables import short

mpl.use("Agg")
_OURS, _OTHERS, _LIMIT = "tab:blue", "tab:gray", "tab:red"
_GIB, _DPI = 2**30, 110


def against_peers(comparison: Comparison, path: Path) -> None:
    """Encoder, step, whole utterance and peak memory of all contenders, medians over the rounds."""
    panels: list[tuple[str, dict[str, float]]] = [
        ("encoder, ms", _milliseconds(comparison, "encoder")),
        ("step at 5 beams, ms", _milliseconds(comparison, "per_token")),
        ("whole utterance, ms", _milliseconds(comparison, "utterance")),
        (
            "peak memory, GiB",
            {
                name: float(np.median(outcome.peak_rss_bytes)) / _GIB
                for name, outcome in comparison.items()
                if outcome.rounds(SINGLE, "utterance")
            },
        ),
    ]
    figure, axes = plt.subplots(2, 2, figsize=(12, 7))
    for axis, (title, values) in zip(axes.flat, panels, strict=True):
        names = sorted(values, key=values.__getitem__, reverse=True)
        colours = [_OURS if name.startswith("speech-export") else _OTHERS for name in names]
        bars = axis.barh(names, [values[name] for name in names], color=colours)
        axis.bar_label(bars, [short(values[name]) for name in names], padding=3)
        axis.margins(x=0.15)
        axis.set_title(title)
    _save(figure, "10 s of audio, 5 beams, 40 tokens: less is better", path)


def against_length_and_beams(
    sweeps: Mapping[str, Sequence[Measurement]],
    encoder_limit: Mapping[float, float],
    step_limits: Mapping[str, float],
    path: Path,
) -> None:
    """Plot the encoder by length, and tokens by length and by beams.

    Args:
        sweeps: measurements of each bundle, by its name in the legend; the first case is the reference.
        encoder_limit: seconds that the integer products of an encoder take at least, by seconds of audio.
        step_limits: seconds that reading the weights takes at least, by the names of `sweeps`.
        path: Path of the picture.
    """
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5))
    by_length, tokens_by_length, tokens_by_beams = axes
    for name, found in sweeps.items():
        lengths, beams = _along(found, "seconds"), _along(found, "beams")
        _line(by_length, name, [(m.case.seconds, m.encoder.p50) for m in lengths])
        _line(tokens_by_length, name, [(m.case.seconds, m.per_token.p50) for m in lengths if m.per_token])
        _line(tokens_by_beams, name, [(m.case.beams, m.per_token.p50) for m in beams if m.per_token])
        if name in step_limits:
            for axis in (tokens_by_length, tokens_by_beams):
                label = f"{name}: reading the weights"
                axis.axhline(1000 * step_limits[name], color=_LIMIT, linestyle="--", label=label)
    if encoder_limit:
        limit = sorted(encoder_limit.items())
        milliseconds = [1000 * least for _, least in limit]
        label = "int8 products alone"
        by_length.plot([seconds for seconds, _ in limit], milliseconds, color=_LIMIT, linestyle="--", label=label)
    for axis, title, unit in (
        (by_length, "encoder, ms", "seconds of audio"),
        (tokens_by_length, "per token at the reference beams, ms", "seconds of audio"),
        (tokens_by_beams, "per token at the reference length, ms", "beams"),
    ):
        axis.set(title=title, xlabel=unit)
        axis.set_ylim(bottom=0)
        axis.legend()
    _save(figure, "Medians, and what the machine allows at best (dashed)", path)


def _milliseconds(comparison: Comparison, metric: Metric) -> dict[str, float]:
    return {
        name: 1000 * float(np.median(times))
        for name, outcome in comparison.items()
        if (times := outcome.rounds(SINGLE, metric))
    }


def _along(found: Sequence[Measurement], axis: str) -> list[Measurement]:
    """The measurements that differ from the first in `axis` only, in its order."""
    others = [name for name in ("seconds", "batch", "beams", "tokens", "threads") if name != axis]
    reference = found[0].case
    same = [m for m in found if all(getattr(m.case, name) == getattr(reference, name) for name in others)]
    return sorted(same, key=lambda m: float(getattr(m.case, axis)))


def _line(axis: Axes, name: str, points: list[tuple[float, float]]) -> None:
    axis.plot([x for x, _ in points], [1000 * seconds for _, seconds in points], marker="o", label=name)


def _save(figure: "plt.Figure", title: str, path: Path) -> None:
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
