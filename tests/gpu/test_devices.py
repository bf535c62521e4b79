"""Test the bundled model on every device: the texts of its clips, the tokens of the CPU, and all options."""

from pathlib import Path

import numpy as np
import pytest

from gpu_cases import DIGITS
from gpu_fixtures import LIMITS, BundleOf, Load
from gpu_machine import missing
from speech_runtime import CudaOptions, OnnxSpeechSeq2Seq, SessionOptions, TensorRtOptions
from speech_runtime.generation.token_scores.maths import log_softmax
from token_agreement import token_agreement

pytestmark = pytest.mark.gpu

MOST = 60
"""Tokens of a sequence; the limits of the engines are a little above."""


@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_tokens_are_those_of_the_cpu(
    num_beams: int, device: str, load: Load, on_cpu: OnnxSpeechSeq2Seq, references: dict[Path, str]
) -> None:
    model = load(device)
    for path in references:
        inputs, mask = model.feature_extractor([model.load(path)])
        found = model.generate(inputs, mask, num_beams=num_beams, max_length=MOST)
        expected = on_cpu.generate(inputs, mask, num_beams=num_beams, max_length=MOST)
        np.testing.assert_array_equal(found, expected)


def test_a_padded_batch_says_what_its_clips_say_alone(device: str, load: Load, references: dict[Path, str]) -> None:
    paths = list(references)[:4]
    texts = load(device).transcribe([str(path) for path in paths], num_beams=4, max_length=MOST)
    assert texts == [references[path] for path in paths]


def test_logits_are_close_to_those_of_the_cpu(
    device: str, load: Load, on_cpu: OnnxSpeechSeq2Seq, references: dict[Path, str]
) -> None:
    model, clip = load(device), next(iter(references))
    inputs, mask = model.feature_extractor([model.load(clip)])
    tokens = np.arange(4, 20)[None] % model.manifest.decoder.vocab_size
    found, expected = (each.forward(inputs, mask, decoder_input_ids=tokens).logits for each in (model, on_cpu))
    # The TensorRT provider of ONNX Runtime rounds products to TF32, and has no option against it.
    np.testing.assert_allclose(found, expected, atol=0.2 if device == "tensorrt" else 2e-3)


def test_half_precision_is_as_close_as_the_cpu_says(
    device: str, load: Load, on_cpu: OnnxSpeechSeq2Seq, references: dict[Path, str]
) -> None:
    """With graphs that emulate rounding on the CPU, log-probabilities of these clips differ by at most 0.037."""
    model = load(device, half=True)
    agreement = []
    for path in references:
        inputs, mask = model.feature_extractor([model.load(path)])
        expected = on_cpu.generate(inputs, mask, num_beams=4, max_length=MOST)
        agreement.append(token_agreement(expected, model.generate(inputs, mask, num_beams=4, max_length=MOST)))
        found, float32 = (
            log_softmax(each.forward(inputs, mask, decoder_input_ids=expected).logits) for each in (model, on_cpu)
        )
        np.testing.assert_allclose(found, float32, atol=0.15)
    assert np.mean(agreement) >= 0.99


@pytest.mark.parametrize(
    "options",
    [
        CudaOptions(convolution_search="EXHAUSTIVE"),
        CudaOptions(convolution_search="DEFAULT", arena_growth="kSameAsRequested"),
        CudaOptions(prefer_nhwc=True),
        CudaOptions(memory_limit=2**31),
    ],
)
def test_cuda_takes_all_its_options(
    options: CudaOptions, cuda: str, bundle_of: BundleOf, references: dict[Path, str]
) -> None:
    session = SessionOptions() if cuda == "cpu" else SessionOptions(device="cuda", cuda=options)
    model, clip = (
        OnnxSpeechSeq2Seq.from_pretrained(bundle_of(DIGITS["digits, cuda"]), options=session),
        next(iter(references)),
    )
    assert model.transcribe(clip, num_beams=4) == references[clip]


@pytest.mark.parametrize("zero_past", [True, False])
def test_tensorrt_finds_its_engines_again(
    zero_past: bool, tmp_path: Path, bundle_of: BundleOf, references: dict[Path, str]
) -> None:
    if reason := missing("tensorrt"):
        pytest.skip(reason)
    tensorrt = TensorRtOptions(limits=LIMITS, engine_cache=tmp_path, zero_past=zero_past)
    clip, files = next(iter(references)), []
    for _ in range(2):
        options = SessionOptions(device="tensorrt", tensorrt=tensorrt)
        model = OnnxSpeechSeq2Seq.from_pretrained(bundle_of(DIGITS["digits, tensorrt"]), options=options)
        assert model.transcribe(clip, num_beams=4) == references[clip]
        files.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")})
    assert files[0]
    assert files[0] == files[1]
