"""Make the demonstration clips: synthetic digit strings in the sampling rates and formats files come in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import soundfile
import soxr

from corpus import SAMPLE_RATE, Samples, join
from digit_strings import Digits, draw_digits, spell
from voices import Voice, speak

_SILENCE_AROUND = 0.15


@dataclass(frozen=True)
class Clip:
    """A file to make: so many digits by this voice, at `rate` Hz, with one channel or two."""

    file: str
    digits: int
    voice: Voice
    rate: int
    channels: int = 1
    separator: str = " "


def _espeak(name: str, pace: float = 0.9, pitch: float = 1.0) -> Voice:
    return Voice("espeak-ng", name, pace, pitch)


def _flite(name: str, pace: float = 0.95, pitch: float = 1.0) -> Voice:
    return Voice("flite", name, pace, pitch)


CLIPS = (
    Clip("01-flite-slt.wav", 3, _flite("slt"), 16_000),
    Clip("02-espeak-us.wav", 5, _espeak("en-us+m3"), 16_000),
    Clip("03-flite-kal.wav", 4, _flite("kal"), 8_000),
    Clip("04-espeak-gb.flac", 6, _espeak("en-gb+f2"), 22_050),
    Clip("05-flite-rms.flac", 7, _flite("rms"), 44_100, separator=", "),
    Clip("06-espeak-scotland.flac", 2, _espeak("en-gb-scotland+paul"), 48_000),
    Clip("07-stereo.flac", 5, _flite("slt", pace=0.85), 48_000, channels=2, separator=", "),
    Clip("08-espeak-one-digit.wav", 1, _espeak("en-us+f5"), 22_050),
    Clip("09-flite-eight-digits.flac", 8, _flite("kal16"), 16_000),
    Clip("10-espeak-eight-digits.wav", 8, _espeak("en-us+Andy", pace=0.85), 8_000),
    Clip("11-espeak-high.wav", 4, _espeak("en-gb-x-rp+f3", pitch=1.2), 44_100),
    Clip("12-flite-awb.flac", 6, _flite("awb"), 22_050),
)


def render(clip: Clip, digits: Digits) -> Samples:
    """float32 at the clip's rate, (samples,) or (samples, 2); in stereo, the right side is 6 dB lower."""
    pause = int(_SILENCE_AROUND * SAMPLE_RATE)
    samples, _ = join([speak(clip.voice, digits, clip.separator)], [pause, pause])
    resampled: Samples = soxr.resample(samples, SAMPLE_RATE, clip.rate)
    quieter = np.float32(0.7) * resampled
    return quieter if clip.channels == 1 else np.stack([quieter, quieter / 2], axis=1)


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(__file__).resolve().parent / "audio",
    help="Folder of the clips.",
)
@click.option("--seed", default=2, show_default=True, help="Seed of the texts.")
def main(output: Path, seed: int) -> None:
    """Write the clips, and reference.tsv with what they say."""
    random = np.random.default_rng(seed)
    output.mkdir(parents=True, exist_ok=True)
    rows = ["file\ttext"]
    for clip in CLIPS:
        digits = draw_digits(random, clip.digits)
        soundfile.write(output / clip.file, render(clip, digits), clip.rate, subtype="PCM_16")
        rows.append(f"{clip.file}\t{spell(digits)}")
    (output / "reference.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
