"""The interface of a peer: load, run cases, and report how long each took, in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from speech_runtime.audio import read_audio
from speech_runtime.backends.tensorrt.profiles import WAVEFORM_RATE
from speech_runtime.bench.options import Case
from speech_runtime.dataclass_json import from_json
from speech_runtime.system import peak_rss_bytes

Samples = NDArray[np.float32]

FOLDER = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Planned:
    """A case, and how many times it is run."""

    case: Case
    repeats: int


@dataclass(frozen=True)
class Job:
    """The job of a peer, read from stdin.

    Attributes:
        model: directory of what it loads.
        variant: Name of one of the variants that its file has.
        cases: in order; the first says how much memory the peer takes.
        warmups: runs of the first case that do not count; later cases have one.
        audio: a file instead of noise. The search then ends where it ends, not after the tokens of the case.
    """

    model: str
    variant: str
    cases: tuple[Planned, ...]
    warmups: int = 1
    audio: str | None = None


@dataclass(frozen=True)
class Sample:
    """Seconds of one run; None if the peer has no such part.

    Attributes:
        encoder: audio to what the decoder attends to.
        per_token: a step of the search at its full width, the host's part included.
        utterance: audio to token ids.
    """

    encoder: float | None = None
    per_token: float | None = None
    utterance: float | None = None


@dataclass(frozen=True)
class Answer:
    """The answer of a peer on stdout: `samples[i]` are the runs of the i-th case.

    `peak_rss_bytes` is the most memory of the process by the end of the first case.
    """

    load_seconds: float
    peak_rss_bytes: int
    samples: tuple[tuple[Sample, ...], ...]


class Peer(Protocol):
    """A loaded model."""

    def run(self, case: Case, clips: Samples) -> Sample:
        """Transcribe `clips` float32 [batch, samples], with the beams and tokens of `case`."""


def serve(load: Callable[[Job], Peer]) -> None:
    """Be a peer that `load` makes: a `Job` on stdin, an `Answer` as the last line on stdout."""
    job = from_json(Job, json.loads(sys.stdin.read()))
    begin = time.perf_counter()
    peer = load(job)
    loaded = time.perf_counter() - begin
    samples: list[tuple[Sample, ...]] = []
    peak = 0
    for planned in job.cases:
        clips = _clips(job, planned.case)
        for _ in range(1 if samples else job.warmups):
            peer.run(planned.case, clips)
        samples.append(tuple(peer.run(planned.case, clips) for _ in range(planned.repeats)))
        peak = peak or peak_rss_bytes()
    sys.stdout.write("\n" + json.dumps(asdict(Answer(loaded, peak, tuple(samples)))) + "\n")


def ask(module: str, job: Job, threads: int, environment: Mapping[str, str]) -> Answer:
    """Run the file of a peer on `job`, with the given number of threads.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    return from_json(Answer, json.loads(run_module(module, json.dumps(asdict(job)), threads, environment)))


def run_module(module: str, message: str, threads: int, environment: Mapping[str, str]) -> str:
    """Run a module of this folder on `message`, in a process with so many threads; return its last line on stdout.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-W", "ignore", "-m", module],
        input=message,
        env={**os.environ, "PYTHONPATH": str(FOLDER), "TRANSFORMERS_VERBOSITY": "error", **limits, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed ({done.returncode}):\n{done.stderr.strip()[-2000:]}")
    return done.stdout.splitlines()[-1]


def missing(packages: tuple[str, ...]) -> list[str]:
    """Those of `packages` that are not installed, by the names that they are imported by."""
    return [package for package in packages if importlib.util.find_spec(package) is None]


def threads_here() -> int:
    """The threads that `ask` was given."""
    return int(os.environ["OMP_NUM_THREADS"])


def _clips(job: Job, case: Case) -> Samples:
    if job.audio is not None:
        clip = read_audio(job.audio, WAVEFORM_RATE)
        normalised = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
        return np.stack([normalised.astype(np.float32)] * case.batch)
    random = np.random.default_rng(0)
    return random.standard_normal((case.batch, round(case.seconds * WAVEFORM_RATE)), dtype=np.float32)
