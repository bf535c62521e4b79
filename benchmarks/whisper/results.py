"""The comparison of contenders on the same weights and clips: medians, ratios, a table and a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from whisper_normalizer.english import EnglishTextNormalizer

from speech_runtime.bench.report import table
from whisper.protocol import Answer

mpl.use("Agg")
_GIB, _DPI = 2**30, 110
_OURS, _OTHERS = "tab:blue", "tab:gray"


@dataclass(frozen=True)
class Summary:
    """What a contender did with one number of beams: medians over the rounds.

    Attributes:
        encoder: Milliseconds from samples to hidden states, mean of the clips.
        per_token: Milliseconds of a token, mean of the clips.
        utterances: Seconds for all clips, for each round.
        speed: Seconds of audio in a second.
        word_error_rate: Word error rate after Whisper's own normalisation of English, 0.01 for 1 %.
        peak_gib: Peak memory of the process in GiB.
        load_seconds: Seconds to load.
    """

    encoder: float
    per_token: float
    utterances: tuple[float, ...]
    speed: float
    word_error_rate: float
    peak_gib: float
    load_seconds: float


def summarise(answers: Sequence[Answer], index: int, texts: Sequence[str], audio_seconds: float) -> Summary:
    """Summarise the rounds of a contender.

    Args:
        answers: Its answers, one for each round.
        index: Position of the number of beams.
        texts: What was said in each clip.
        audio_seconds: Length of all clips.
    """
    rounds = [answer.heard[index] for answer in answers]
    utterances = tuple(sum(each.utterance for each in heard) for heard in rounds)
    normalised = EnglishTextNormalizer()
    found = [normalised(each.text) for each in rounds[0]]
    return Summary(
        encoder=1e3 * float(np.median([np.mean([each.encoder for each in heard]) for heard in rounds])),
        per_token=1e3 * float(np.median([np.mean([each.per_token for each in heard]) for heard in rounds])),
        utterances=utterances,
        speed=audio_seconds / float(np.median(utterances)),
        word_error_rate=jiwer.wer([normalised(text) for text in texts], found),
        peak_gib=float(np.median([answer.peak_rss_bytes for answer in answers])) / _GIB,
        load_seconds=float(np.median([answer.load_seconds for answer in answers])),
    )


def ratio(slower: Summary, faster: Summary) -> float:
    """Return how many times as fast as `slower` `faster` is: the median over the rounds."""
    return float(np.median([a / b for a, b in zip(slower.utterances, faster.utterances, strict=True)]))


def as_markdown(summaries: Mapping[str, Summary], clips: int) -> list[str]:
    """Return the table of one number of beams; the last column has how many times as fast the first contender is."""
    first = next(iter(summaries.values()))
    rows = [
        [
            name,
            *(f"{value:.3g}" for value in (found.encoder, found.per_token)),
            f"{1e3 * float(np.median(found.utterances)) / clips:.0f}",
            f"{found.speed:.1f}",
            f"{found.word_error_rate:.2%}",
            *(f"{value:.2f}" for value in (found.peak_gib, found.load_seconds, ratio(found, first))),
        ]
        for name, found in summaries.items()
    ]
    columns = (
        *("", "features and encoder, ms", "a token, ms", "whole clip, ms", "× real time", "word error rate"),
        *("peak GiB", "load, s", "its time / that of the first"),
    )
    return table(columns, rows)


def plot(by_beams: Mapping[int, Mapping[str, Summary]], clips: int, path: Path) -> None:
    """Draw the time of a whole clip for each contender, a panel for each number of beams."""
    figure, axes = plt.subplots(1, len(by_beams), figsize=(12, 4), squeeze=False)
    for axis, (beams, summaries) in zip(axes.flat, by_beams.items(), strict=True):
        values = {name: 1e3 * float(np.median(found.utterances)) / clips for name, found in summaries.items()}
        names = sorted(values, key=values.__getitem__, reverse=True)
        colours = [_OURS if name.startswith("speech-export") else _OTHERS for name in names]
        bars = axis.barh(names, [values[name] for name in names], color=colours)
        axis.bar_label(bars, [f"{values[name]:.0f}" for name in names], padding=3)
        axis.margins(x=0.15)
        axis.set_title("greedy" if beams == 1 else f"{beams} beams")
        axis.set_xlabel("whole clip, ms")
    figure.suptitle("Whisper tiny.en, the same weights: less is better")
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
