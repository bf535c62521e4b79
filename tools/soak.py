"""Transcribe parts of clips with many settings, and print the memory of the process after each round.

Run as `python tools/soak.py BUNDLE THREADS ROUNDS UTTERANCES CLIP…`: the resident memory, KiB, after every round.
"""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from speech_runtime import OnnxSpeechSeq2Seq, SessionOptions

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"num_beams": 4, "length_penalty": 0.6},
    {"num_beams": 5, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
    {"do_sample": True, "top_k": 10, "temperature": 1.3},
    {"num_beams": 2, "early_stopping": True, "max_time": 0.05},
)
SHORTEST, LONGEST = 1600, 16000
_RESIDENT = re.compile(r"^VmRSS:\s*(\d+) kB$", re.MULTILINE)


def resident_kib() -> int:
    """Return the physical memory of this process, from /proc."""
    found = _RESIDENT.search(Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError("/proc/self/status does not say VmRSS")
    return int(found[1])


def soak(model: OnnxSpeechSeq2Seq, clips: list[Path], seed: int) -> None:
    """Transcribe a random part of a clip with one of the settings."""
    random = np.random.default_rng(seed)
    samples = model.load(clips[random.integers(len(clips))])
    length = int(random.integers(SHORTEST, LONGEST))
    part = samples[:length] + random.normal(0, 1e-3, min(length, samples.size))  # silence alone is refused
    settings = {"max_new_tokens": int(random.integers(1, 12)), **SETTINGS[seed % len(SETTINGS)]}
    model.transcribe(part, **settings)


def main(bundle: str, threads: str, rounds: str, utterances: str, *clips: str) -> None:
    """Print the resident memory, KiB, after every round of utterances; see the module."""
    model = OnnxSpeechSeq2Seq.from_pretrained(bundle, options=SessionOptions(intra_op_threads=1))
    paths = [Path(clip) for clip in clips]
    with ThreadPoolExecutor(int(threads)) as pool:
        for number in range(int(rounds)):
            seeds = range(number * int(utterances), (number + 1) * int(utterances))
            list(pool.map(lambda seed: soak(model, paths, seed), seeds))
            sys.stdout.write(f"{resident_kib()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
