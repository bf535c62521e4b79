"""Synthetic speech: the voices of espeak-ng and flite, the split of them for training, and how they speak."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr

from corpus import SAMPLE_RATE, Samples
from digit_strings import DIGIT_WORDS, Digits

_ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-us-nyc", "en-gb-x-gbclan")
_VARIANTS = (
    *("m1", "m2", "m3", "m4", "m6", "m7", "m8", "f1", "f2", "f3", "f5", "klatt", "klatt2", "klatt4"),
    *("adam", "Alex", "Alicia", "Andrea", "Andy", "antonio", "aunty", "belinda", "benjamin", "boris"),
    *("caleb", "david", "Denis", "Diogo", "ed", "edward", "Gene", "Henrique", "Hugo", "iven", "Jacky"),
    *("john", "Lee", "linda", "Marco", "Mario", "max", "Michael", "michel", "miguel", "Mike", "norbert"),
    *("pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph", "steph3"),
    *("travis", "victor", "anika", "grandma"),
)
_UNSEEN_VARIANTS = ("m5", "f4", "Annie", "marcelo", "steph2", "zac", "klatt3", "grandpa")
_FLITE_VOICES = ("kal", "kal16", "awb", "rms", "slt")

VoiceSet = Literal["training", "unseen"]


@dataclass(frozen=True)
class Voice:
    """A synthesiser's voice with its settings.

    `pace` multiplies the speed of speech, 1.0 being the synthesiser's usual one; `pitch` does the same
    for the fundamental frequency.
    """

    engine: Literal["espeak-ng", "flite"]
    name: str
    pace: float
    pitch: float


def draw_voice(random: np.random.Generator, flite_share: float, voices: VoiceSet = "training") -> Voice:
    """A random voice; flite has five, all of them in training, so "unseen" ones are espeak-ng's."""
    pace = float(random.uniform(0.75, 1.15))
    pitch = float(random.uniform(0.8, 1.25))
    if voices == "training" and random.random() < flite_share:
        return Voice("flite", str(random.choice(_FLITE_VOICES)), pace, pitch)
    variants = _VARIANTS if voices == "training" else _UNSEEN_VARIANTS
    return Voice("espeak-ng", f"{random.choice(_ACCENTS)}+{random.choice(variants)}", pace, pitch)


def _command(voice: Voice, text: str, target: Path) -> list[str]:
    if voice.engine == "flite":
        # Each voice has a mean pitch of its own, which "int_f0_target_mean" would replace and this scales.
        pitch_shift = f"f0_shift={voice.pitch:.3f}"
        stretch = f"duration_stretch={1 / voice.pace:.3f}"
        settings = ("-voice", voice.name, "--setf", stretch, "--setf", pitch_shift)
        return ["flite", *settings, "-t", text, "-o", str(target)]
    words_a_minute, pitch = f"{175 * voice.pace:.0f}", f"{50 * voice.pitch:.0f}"
    return ["espeak-ng", "-v", voice.name, "-s", words_a_minute, "-p", pitch, "-w", str(target), text]


def trim_silence(samples: Samples) -> Samples:
    """Drop what is more than 40 dB below the peak at both ends."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max(initial=0.0))
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def speak(voice: Voice, digits: Digits, separator: str = " ") -> Samples:
    """The voice saying the string: float32 at 16 kHz, without silence at the ends.

    `separator` goes between the words; ", " makes the synthesiser pause.
    """
    text = separator.join(DIGIT_WORDS[digit] for digit in digits)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "speech.wav"
        subprocess.run(_command(voice, text, target), check=True, capture_output=True)
        samples, rate = soundfile.read(target, dtype="float32")
    return trim_silence(soxr.resample(samples, rate, SAMPLE_RATE))
