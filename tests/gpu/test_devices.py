"""Test the bundled model on a GPU: the tokens of the CPU, constant memory, and faster than real time."""

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from conftest import Pair
from speech_export.tensorrt.add_engines import add_engines
from speech_export.tensorrt.build import BuildOptions
from speech_runtime import CudaOptions, EngineError, OnnxSpeechSeq2Seq, ProfileLimits, SessionOptions, TensorRtOptions
from speech_runtime.backends.cuda.calls import Cuda
from speech_runtime.backends.options import CUDA, TENSORRT, TENSORRT_RTX
from speech_runtime.backends.tensorrt.library import import_tensorrt
from speech_runtime.bundle.manifest import Manifest
from speech_runtime.generation.token_scores.maths import log_softmax
from token_agreement import token_agreement

pytestmark = pytest.mark.gpu

Load = Callable[..., OnnxSpeechSeq2Seq]
"""Function that loads the model on a device, with the precision of the bundle; fp32 by default."""

DEVICES = {"cuda": CUDA, "tensorrt": TENSORRT, "tensorrt_rtx": TENSORRT_RTX, "engines": None}
"""Execution provider that each device needs."""

LIMITS = ProfileLimits(batch=(1, 1, 4), beams=(1, 4, 5), seconds=(0.1, 3.0, 12.0), tokens=(1, 10, 64))
UTTERANCES = 1000
WARM_UP = 20
ALLOWED_GROWTH = 32 * 2**20
"""Bytes of growth to allow: arenas settle, while leaking the caches of one utterance would take more."""


@cache
def missing(device: str) -> str:
    """Return why `device` is not available here; empty if it is."""
    provider = DEVICES[device]
    if provider is not None and provider not in onnxruntime.get_available_providers():
        return f"this ONNX Runtime has no {provider}"
    try:
        Cuda()
        if provider is None:
            import_tensorrt()
    except EngineError as error:
        return str(error)
    return ""


def need(device: str) -> None:
    if reason := missing(device):
        pytest.skip(reason)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Yield each device; skip those that are not available."""
    name: str = request.param
    need(name)
    return name


@pytest.fixture(scope="module")
def load(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Load the bundled model on a device, with engines built on this GPU."""

    @cache
    def directory(device: str, precision: str) -> Path:
        exported: Path
        if precision == "fp16":
            exported = request.getfixturevalue("half_digits").directory
        else:
            exported = request.getfixturevalue("digits_for_tensorrt")
        if device != "engines":
            return exported
        copy = Path(shutil.copytree(exported, tmp_path_factory.mktemp("engines") / "bundle"))
        replace(Manifest.read(copy), engines=()).write(copy)  # stored engines are for other GPUs, or round to TF32
        add_engines(copy, import_tensorrt(), BuildOptions(limits=LIMITS))
        return copy

    @cache
    def on(device: str, precision: str = "fp32") -> OnnxSpeechSeq2Seq:
        options = None
        if device in ("tensorrt", "tensorrt_rtx"):
            options = SessionOptions(device=device, tensorrt=TensorRtOptions(limits=LIMITS))
        name = device if options is None else None
        return OnnxSpeechSeq2Seq.from_pretrained(directory(device, precision), device=name, options=options)

    return on


@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_tokens_are_those_of_the_cpu(
    num_beams: int, device: str, load: Load, digits: Pair, references: dict[Path, str]
) -> None:
    model = load(device)
    for path in references:
        inputs, mask = model.feature_extractor([model.load(path)])
        found = model.generate(inputs, mask, num_beams=num_beams, max_length=60)
        expected = digits.exported.generate(inputs, mask, num_beams=num_beams, max_length=60)
        np.testing.assert_array_equal(found, expected)


def test_a_padded_batch_says_what_its_clips_say_alone(device: str, load: Load, references: dict[Path, str]) -> None:
    model = load(device)
    paths = list(references)[:4]
    assert model.transcribe([str(path) for path in paths], num_beams=4, max_length=60) == [
        references[path] for path in paths
    ]


def test_logits_are_close_to_those_of_the_cpu(
    device: str, load: Load, digits: Pair, references: dict[Path, str]
) -> None:
    model, clip = load(device), next(iter(references))
    inputs, mask = model.feature_extractor([model.load(clip)])
    tokens = np.arange(4, 20)[None] % model.manifest.decoder.vocab_size
    found, expected = (each.forward(inputs, mask, decoder_input_ids=tokens).logits for each in (model, digits.exported))
    # The TensorRT provider of ONNX Runtime rounds products to TF32, and has no option against it.
    np.testing.assert_allclose(found, expected, atol=0.2 if device == "tensorrt" else 2e-3)


def test_half_precision_is_as_close_as_the_cpu_says(
    device: str, load: Load, digits: Pair, references: dict[Path, str]
) -> None:
    """With graphs that emulate rounding on the CPU, log-probabilities of these clips differ by at most 0.037."""
    model = load(device, "fp16")
    agreement = []
    for path in references:
        inputs, mask = model.feature_extractor([model.load(path)])
        expected = digits.exported.generate(inputs, mask, num_beams=4, max_length=60)
        agreement.append(token_agreement(expected, model.generate(inputs, mask, num_beams=4, max_length=60)))
        found, float32 = (
            log_softmax(each.forward(inputs, mask, decoder_input_ids=expected).logits)
            for each in (model, digits.exported)
        )
        np.testing.assert_allclose(found, float32, atol=0.15)
    assert np.mean(agreement) >= 0.99


def test_memory_does_not_grow_with_the_number_of_utterances(
    device: str, load: Load, references: dict[Path, str]
) -> None:
    model = load(device)
    clips = [model.load(path) for path in references]

    def utterances(count: int) -> None:
        for index in range(count):
            model.transcribe([clips[index % len(clips)]], num_beams=4, max_length=60)

    utterances(WARM_UP)
    gpu = Cuda()
    before = gpu.free_memory
    utterances(UTTERANCES)
    assert before - gpu.free_memory <= ALLOWED_GROWTH


def test_an_utterance_takes_less_time_than_it_lasts(
    device: str, load: Load, references: dict[Path, str], record_property: Callable[[str, object], None]
) -> None:
    model = load(device)
    clip = model.load(next(iter(references)))
    seconds = []
    for _ in range(WARM_UP):
        begin = time.perf_counter()
        model.transcribe([clip], num_beams=4, max_length=60)
        seconds.append(time.perf_counter() - begin)
    usual = statistics.median(seconds[WARM_UP // 2 :])
    record_property("median_seconds", usual)  # in the report of --junit-xml
    assert usual < clip.size / model.feature_extractor.sampling_rate


@pytest.mark.parametrize(
    "cuda",
    [
        CudaOptions(convolution_search="EXHAUSTIVE"),
        CudaOptions(convolution_search="DEFAULT", arena_growth="kSameAsRequested"),
        CudaOptions(prefer_nhwc=True),
        CudaOptions(memory_limit=2**31),
    ],
)
def test_cuda_takes_all_its_options(cuda: CudaOptions, digits_for_tensorrt: Path, references: dict[Path, str]) -> None:
    need("cuda")
    options = SessionOptions(device="cuda", cuda=cuda)
    model, clip = OnnxSpeechSeq2Seq.from_pretrained(digits_for_tensorrt, options=options), next(iter(references))
    assert model.transcribe(clip, num_beams=4) == references[clip]


@pytest.mark.parametrize("zero_past", [True, False])
def test_tensorrt_finds_its_engines_again(
    zero_past: bool, tmp_path: Path, digits_for_tensorrt: Path, references: dict[Path, str]
) -> None:
    need("tensorrt")
    tensorrt = TensorRtOptions(limits=LIMITS, engine_cache=tmp_path, zero_past=zero_past)
    clip, files = next(iter(references)), []
    for _ in range(2):
        options = SessionOptions(device="tensorrt", tensorrt=tensorrt)
        model = OnnxSpeechSeq2Seq.from_pretrained(digits_for_tensorrt, options=options)
        assert model.transcribe(clip, num_beams=4) == references[clip]
        files.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")})
    assert files[0]
    assert files[0] == files[1]
