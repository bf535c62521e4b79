"""The interface of a contender: load a model, transcribe clips, and report texts and times, in a process of its own."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from peers.protocol import run_module
from speech_runtime.audio import read_audio
from speech_runtime.dataclass_json import from_json
from speech_runtime.system import peak_rss_bytes

Samples = NDArray[np.float32]
RATE = 16_000
"""Sampling rate of Whisper in Hz."""


@dataclass(frozen=True)
class Job:
    """The job of a contender, read from stdin.

    Attributes:
        model: Directory of its model.
        variant: Name of one of the variants that its file has.
        files: Audio files, in the order in which they are transcribed.
        beams: Numbers of beams; all files are transcribed with each.
    """

    model: str
    variant: str
    files: tuple[str, ...]
    beams: tuple[int, ...]


@dataclass(frozen=True)
class Heard:
    """The transcription of one clip.

    Attributes:
        text: Text.
        encoder: Seconds from samples to what the decoder attends to, the features included.
        utterance: Seconds from samples to text.
        tokens: Number of tokens that the decoder has chosen, the end token included.
    """

    text: str
    encoder: float
    utterance: float
    tokens: int

    @property
    def per_token(self) -> float:
        """Seconds that each token took."""
        return (self.utterance - self.encoder) / self.tokens


@dataclass(frozen=True)
class Answer:
    """The answer of a contender on stdout: `heard[i][j]` is the j-th file with the i-th number of beams."""

    load_seconds: float
    peak_rss_bytes: int
    heard: tuple[tuple[Heard, ...], ...]


class Transcriber(Protocol):
    """A loaded model."""

    def hear(self, samples: Samples, beams: int) -> Heard:
        """Transcribe samples float32 [samples] at `RATE`."""


def serve(load: Callable[[Job], Transcriber]) -> None:
    """Be a contender that `load` makes: a `Job` on stdin, an `Answer` as the last line on stdout."""
    job = from_json(Job, json.loads(sys.stdin.read()))
    clips = [read_audio(file, RATE) for file in job.files]
    begin = time.perf_counter()
    transcriber = load(job)
    loaded = time.perf_counter() - begin
    heard = []
    for beams in job.beams:
        transcriber.hear(clips[0], beams)  # warms up
        heard.append(tuple(transcriber.hear(clip, beams) for clip in clips))
    sys.stdout.write("\n" + json.dumps(asdict(Answer(loaded, peak_rss_bytes(), tuple(heard)))) + "\n")


def ask(module: str, job: Job, threads: int) -> Answer:
    """Run the file of a contender on `job`, with the given number of threads.

    Raises:
        RuntimeError: It failed; with the end of what it said.
    """
    return from_json(Answer, json.loads(run_module(module, json.dumps(asdict(job)), threads, {})))
