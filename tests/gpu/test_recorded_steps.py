"""Test steps recorded as CUDA graphs on a GPU: the tokens of the CPU, and no slower than without them."""

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import CHECKPOINT, ExportOnce, Pair
from gpu.test_devices import ALLOWED_GROWTH, LIMITS, need
from speech_export.precision.options import PrecisionOptions
from speech_export.tensorrt.add_engines import add_engines
from speech_export.tensorrt.build import BuildOptions
from speech_runtime import CudaOptions, EngineOptions, OnnxSpeechSeq2Seq, SessionOptions
from speech_runtime.backends.cuda.calls import Cuda
from speech_runtime.backends.tensorrt.library import import_tensorrt
from speech_runtime.bundle.manifest import Manifest

pytestmark = pytest.mark.gpu

SIZES = 4
ROUNDS = 20
SLOWER = 1.1
"""Largest allowed ratio of the time of a recorded utterance to that of one that is not: times vary."""

Load = Callable[[int], OnnxSpeechSeq2Seq]


@pytest.fixture(scope="module", params=["cuda", "engines"])
def load(request: pytest.FixtureRequest, export_once: ExportOnce, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Load the bundled model with a static cache, and record so many sizes."""
    need(request.param)
    exported = export_once("digits-static", CHECKPOINT, precision=PrecisionOptions(target="tensorrt"), static_cache=64)
    if request.param == "cuda":
        return lambda sizes: OnnxSpeechSeq2Seq.from_pretrained(
            exported, options=SessionOptions(device="cuda", cuda=CudaOptions(cuda_graphs=sizes))
        )
    copy = Path(shutil.copytree(exported, tmp_path_factory.mktemp("engines") / "bundle"))
    replace(Manifest.read(copy), engines=()).write(copy)
    add_engines(copy, import_tensorrt(), BuildOptions(limits=LIMITS))
    return lambda sizes: OnnxSpeechSeq2Seq.from_pretrained(copy, options=EngineOptions(cuda_graphs=sizes))


@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_tokens_are_those_of_the_cpu(num_beams: int, load: Load, digits: Pair, references: dict[Path, str]) -> None:
    model = load(SIZES)  # the clips have more lengths than are recorded
    for path in [*references] * 2:
        inputs, mask = model.feature_extractor([model.load(path)])
        found = model.generate(inputs, mask, num_beams=num_beams, max_length=60)
        expected = digits.exported.generate(inputs, mask, num_beams=num_beams, max_length=60)
        np.testing.assert_array_equal(found, expected)


def test_recorded_steps_take_no_longer_and_no_more_memory_each_time(
    load: Load, references: dict[Path, str], record_property: Callable[[str, object], None]
) -> None:
    usual = {}
    for sizes in (0, SIZES):
        model, seconds = load(sizes), []
        clip = model.load(next(iter(references)))
        model.transcribe([clip], num_beams=4, max_length=60)
        gpu = Cuda()
        before = gpu.free_memory
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            model.transcribe([clip], num_beams=4, max_length=60)
            seconds.append(time.perf_counter() - begin)
        assert before - gpu.free_memory <= ALLOWED_GROWTH
        usual[sizes] = statistics.median(seconds)
        record_property(f"median_seconds_{sizes}_recorded", usual[sizes])  # in the report of --junit-xml
    assert usual[SIZES] <= SLOWER * usual[0]
