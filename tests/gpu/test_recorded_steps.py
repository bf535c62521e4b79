"""Test steps recorded as CUDA graphs on a GPU: the tokens of the CPU, and no slower than without them."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpu_cases import DIGITS
from gpu_fixtures import BundleOf, usable, with_engines
from gpu_machine import ALLOWED_GROWTH, used_memory
from speech_runtime import CudaOptions, EngineOptions, OnnxSpeechSeq2Seq, SessionOptions

pytestmark = pytest.mark.gpu

SIZES = 4
ROUNDS = 20
SLOWER = 1.1
"""Largest allowed ratio of the time of a recorded utterance to that of one that is not: times vary."""

Record = Callable[[int], OnnxSpeechSeq2Seq]


CASES = {
    "cuda, beams share a cache": ("cuda", "digits, cuda"),
    "cuda, static cache": ("cuda", "digits, tensorrt, static"),
    "engines, static cache": ("engines", "digits, tensorrt, static"),
}
"""Devices that record steps, and bundles whose steps they record."""


@pytest.fixture(scope="module", params=CASES.values(), ids=list(CASES))
def recorded(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Yield a device and the name of a bundle; skip devices that this machine lacks something for."""
    device, bundle = request.param
    return usable(request, device), bundle


@pytest.fixture(scope="module")
def recording(recorded: tuple[str, str]) -> str:
    """The device that records."""
    return recorded[0]


@pytest.fixture(scope="module")
def record(recorded: tuple[str, str], bundle_of: BundleOf, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Load the bundled model, and record so many sizes."""
    device, name = recorded
    bundle = bundle_of(DIGITS[name])
    if device == "engines":
        copy = with_engines(bundle, tmp_path_factory)
        return lambda sizes: OnnxSpeechSeq2Seq.from_pretrained(copy, options=EngineOptions(cuda_graphs=sizes))
    if device == "cpu":
        return lambda _: OnnxSpeechSeq2Seq.from_pretrained(bundle)
    return lambda sizes: OnnxSpeechSeq2Seq.from_pretrained(
        bundle, options=SessionOptions(device="cuda", cuda=CudaOptions(cuda_graphs=sizes))
    )


@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_tokens_are_those_of_the_cpu(
    num_beams: int, record: Record, on_cpu: OnnxSpeechSeq2Seq, references: dict[Path, str]
) -> None:
    model = record(SIZES)  # the clips have more lengths than are recorded
    for path in [*references] * 2:
        inputs, mask = model.feature_extractor([model.load(path)])
        found = model.generate(inputs, mask, num_beams=num_beams, max_length=60)
        expected = on_cpu.generate(inputs, mask, num_beams=num_beams, max_length=60)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.alone
def test_recorded_steps_take_no_longer_and_no_more_memory_each_time(
    recording: str, record: Record, references: dict[Path, str], record_property: Callable[[str, object], None]
) -> None:
    usual = {}
    for sizes in (0, SIZES):
        model, seconds = record(sizes), []
        clip = model.load(next(iter(references)))
        model.transcribe([clip], num_beams=4, max_length=60)
        before = used_memory(recording)
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            model.transcribe([clip], num_beams=4, max_length=60)
            seconds.append(time.perf_counter() - begin)
        assert used_memory(recording) - before <= ALLOWED_GROWTH
        usual[sizes] = statistics.median(seconds)
        record_property(f"median_seconds_{sizes}_recorded", usual[sizes])  # in the report of --junit-xml
    if recording != "cpu":  # which records nothing
        assert usual[SIZES] <= SLOWER * usual[0]
