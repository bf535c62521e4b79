"""Test memory and time, on a machine that does nothing else: `make test-gpu` runs these at the end, one by one."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpu_fixtures import Load
from gpu_machine import ALLOWED_GROWTH, used_memory

pytestmark = [pytest.mark.gpu, pytest.mark.alone]

UTTERANCES = {"cpu": 60}
"""Number of utterances of the memory test, where it is not `USUALLY`."""
USUALLY = 1000
WARM_UP = 30
RUNS = 20


def test_memory_does_not_grow_with_the_number_of_utterances(
    device: str, load: Load, references: dict[Path, str]
) -> None:
    """Batches, beams and lengths change all the time, so that recorded steps come and go."""
    model = load(device)
    clips = [model.load(path) for path in references]
    random = np.random.default_rng(0)

    def utterances(count: int) -> None:
        while count > 0:
            chosen = random.choice(len(clips), size=random.integers(1, 5), replace=False)
            model.transcribe([clips[index] for index in chosen], num_beams=int(random.integers(1, 6)), max_length=60)
            count -= chosen.size

    utterances(WARM_UP)
    before = used_memory(device)
    utterances(UTTERANCES.get(device, USUALLY))
    assert used_memory(device) - before <= ALLOWED_GROWTH


def test_an_utterance_takes_less_time_than_it_lasts(
    device: str, load: Load, references: dict[Path, str], record_property: Callable[[str, object], None]
) -> None:
    model = load(device)
    clip = model.load(next(iter(references)))
    seconds = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        model.transcribe([clip], num_beams=4, max_length=60)
        seconds.append(time.perf_counter() - begin)
    usual = statistics.median(seconds[RUNS // 2 :])
    record_property("median_seconds", usual)  # in the report of --junit-xml
    assert usual < clip.size / model.feature_extractor.sampling_rate
