"""Test decoders with a static cache: the tokens of transformers, the logits of a growing cache, constant shapes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from composites import DECODERS, composite
from conftest import CHECKPOINT, ONE_THREAD, ExportOnce, Pair
from cuda_placement import obstacles
from half_matrix import FP16_FOR_TENSORRT as FP16
from matrix import clip_lengths, engine_bytes, padded_batch
from speech_export import ExportError, export
from speech_export.precision.options import PrecisionOptions
from speech_export.verification.reference import Oracle
from speech_runtime import GenerationError, OnnxSpeechSeq2Seq
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.bundle.graph_io import DECODER_INIT, DECODER_WITH_PAST, GRAPHS
from speech_runtime.bundle.loading import Bundle
from speech_runtime.cli.describe import describe
from speech_runtime.generation.decoding.decoder import CachedDecoder

pytestmark = pytest.mark.usefixtures("short_verification", "traced_once")

LENGTH = 40
FOR_TENSORRT = PrecisionOptions(target="tensorrt")
WITHOUT = {"prophetnet"}
"""Families that are refused."""

USUAL = {"bert", "whisper"}
FAMILIES = [
    pytest.param(family, marks=[] if family in USUAL else [pytest.mark.full])
    for family in DECODERS
    if family not in WITHOUT
]
STEPS = 24

Tokens = NDArray[np.int64]


@pytest.fixture(scope="module")
def static(export_once: ExportOnce) -> Callable[[str], Bundle]:
    """The bundle of a tiny random composite, with a static cache."""

    def make(family: str) -> Bundle:
        settings: dict[str, Any] = {"precision": FOR_TENSORRT, "static_cache": LENGTH}
        return Bundle.open(export_once(f"{family}-static", composite(family), **settings))

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_searches_find_what_transformers_finds(static: Callable[[str], Bundle], family: str) -> None:
    bundle = static(family)
    model = OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=ONE_THREAD)
    facts = bundle.manifest.encoder
    inputs, mask = padded_batch(facts, clip_lengths(facts))
    oracle = Oracle(composite(family), inputs, mask)
    for settings in ({"num_beams": 1}, {"num_beams": 4, "num_return_sequences": 2}, {"num_beams": 5}):
        given = {**settings, "max_new_tokens": STEPS}
        np.testing.assert_array_equal(model.generate(inputs, mask, **given), oracle.generate(**given))
    prompt = np.random.default_rng(0).integers(4, 90, (3, 5))
    given = {"num_beams": 4, "max_new_tokens": STEPS}
    found = model.generate(inputs, mask, decoder_input_ids=prompt, **given)
    start = np.full((3, 1), model.generation_config.decoder_start_token_id)
    whole = torch.from_numpy(np.concatenate([start, prompt], axis=1))
    np.testing.assert_array_equal(found, oracle.generate(decoder_input_ids=whole, **given))
    logits = torch.from_numpy(model.forward(inputs, mask, decoder_input_ids=prompt).logits)
    difference = oracle.logprobs(prompt) - torch.log_softmax(logits, dim=-1)
    assert float(difference.abs().max()) <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_that_are_masked_change_nothing_where_the_bundle_says_so(
    static: Callable[[str], Bundle], family: str
) -> None:
    bundle = static(family)
    backend, facts = OnnxRuntimeBackend(bundle, ONE_THREAD), bundle.manifest.decoder
    width = backend._sessions[DECODER_INIT].get_inputs()[0].shape[-1]
    random = np.random.default_rng(0)
    states, tokens = random.standard_normal((2, 17, width)).astype(np.float32), random.integers(4, 90, (2, 6))
    found = []
    for more in (0, 7):
        filled = np.pad(states, ((0, 0), (0, more), (0, 0)))
        mask = np.pad(np.ones((2, 17), dtype=np.int64), ((0, 0), (0, more)))
        found.append(CachedDecoder(backend, facts, 2, backend.upload(filled), backend.upload(mask)).logits(tokens))
    same = bool(np.allclose(*found, atol=1e-5, rtol=0))
    assert same == facts.masks_audio == (family != "whisper")


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_in_the_way_of_a_cuda_graph(static: Callable[[str], Bundle], family: str) -> None:
    path = static(family).path(f"{DECODER_WITH_PAST}.onnx")
    assert obstacles(path) == []
    dynamic = {
        size.dim_param
        for value in (*onnx.load(path).graph.input, *onnx.load(path).graph.output)
        for size in value.type.tensor_type.shape.dim
        if size.dim_param
    }
    assert dynamic == {"batch", "beams", "past_beams", "frames"}


@pytest.mark.parametrize("family", FAMILIES)
def test_tensorrt_takes_it_strongly_typed(static: Callable[[str], Bundle], family: str) -> None:
    assert engine_bytes(static(family), DECODER_WITH_PAST) > 0


def decoders(bundle: Bundle, growing: Bundle, batch: int) -> tuple[CachedDecoder, CachedDecoder]:
    random = np.random.default_rng(0)
    states = random.standard_normal((batch, 17, 24)).astype(np.float32)
    mask = (np.arange(17) < np.array([17, 11])[:batch, None]).astype(np.int64)
    found = []
    for each in (bundle, growing):
        backend = OnnxRuntimeBackend(each, ONE_THREAD)
        facts = each.manifest.decoder
        found.append(CachedDecoder(backend, facts, batch, backend.upload(states), backend.upload(mask)))
    return found[0], found[1]


@pytest.mark.parametrize("family", ["bert", pytest.param("mbart", marks=pytest.mark.full)])
def test_every_step_says_what_that_of_the_growing_graph_says(
    static: Callable[[str], Bundle], export_once: ExportOnce, family: str
) -> None:
    growing = Bundle.open(export_once(f"{family}-growing", composite(family), precision=FOR_TENSORRT))
    ours, theirs = decoders(static(family), growing, batch=2)
    random, past_beams, batch = np.random.default_rng(1), 1, 2
    for step in range(STEPS):
        beams = 1 if step == 0 else 4
        if step == STEPS // 2:  # one of the utterances is done
            batch = 1
            ours.select_utterances([1])
            theirs.select_utterances([1])
        ids, kept = random.integers(4, 90, (batch, beams)), random.integers(0, past_beams, (batch, beams))
        if step:
            steps = [each.step(ids.tolist(), kept.tolist(), full_vocab=True) for each in (ours, theirs)]
        else:
            prompt = random.integers(4, 90, (batch, 3))
            steps = [each.start(prompt, full_vocab=True) for each in (ours, theirs)]
        for found, expected in zip(*steps, strict=True):
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        past_beams = beams


def test_real_clips_of_which_some_end_early(export_once: ExportOnce, digits: Pair, references: dict[Path, str]) -> None:
    directory = export_once("digits-static", CHECKPOINT, precision=FOR_TENSORRT, static_cache=64)
    model = OnnxSpeechSeq2Seq.from_pretrained(directory, options=ONE_THREAD)
    clips = [model.load(path) for path in sorted(references, key=lambda path: len(references[path]))]
    found, expected = (
        [heard.text for heard in each.transcribe_iter(clips, batch_size=len(clips), num_beams=4)]
        for each in (model, digits.exported)
    )
    assert found == expected


class Dirty(OnnxRuntimeBackend):
    """Memory that somebody has used before."""

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return self.upload(np.full(shape, np.nan if dtype.kind == "f" else -1, dtype=dtype))


def test_what_was_in_the_memory_before_does_not_matter(static: Callable[[str], Bundle]) -> None:
    bundle = static("bert")
    clean = OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=ONE_THREAD)
    parts = (clean.manifest, clean.generation_config, clean.feature_extractor, clean.tokenizer)
    dirty = OnnxSpeechSeq2Seq(Dirty(bundle, ONE_THREAD), *parts)
    inputs, mask = padded_batch(bundle.manifest.encoder, clip_lengths(bundle.manifest.encoder))
    found, expected = (
        each.generate(inputs, mask, num_beams=4, max_new_tokens=STEPS, return_dict_in_generate=True)
        for each in (dirty, clean)
    )
    np.testing.assert_array_equal(found.sequences, expected.sequences)
    np.testing.assert_array_equal(found.sequences_scores, expected.sequences_scores)


def test_the_longest_sequence_fills_the_cache_and_no_longer_one_is_begun(static: Callable[[str], Bundle]) -> None:
    bundle = static("bert")
    model = OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=ONE_THREAD)
    audio = np.zeros((1, bundle.manifest.encoder.min_length * 20), dtype=np.float32)
    longest = {"max_length": LENGTH + 1, "min_length": LENGTH + 1}
    assert model.generate(audio, **longest).shape == (1, LENGTH + 1)
    said = rf"{LENGTH + 2} tokens does not fit the static cache .* room for {LENGTH} .*--static-cache TOKENS"
    with pytest.raises(GenerationError, match=said):
        model.generate(audio, max_length=LENGTH + 2)
    with pytest.raises(GenerationError, match=rf"takes {LENGTH} at most; .*--static-cache"):
        model.forward(audio, decoder_input_ids=np.full((1, LENGTH + 1), 7))
    assert f"a static cache of {LENGTH} tokens" in describe(bundle)


@pytest.mark.parametrize(
    ("family", "length", "target", "message"),
    [
        (
            "bert",
            65,
            "tensorrt",
            "the static cache has 65 tokens, and the decoder has 64 positions; set --static-cache to 64 or less",
        ),
        ("bert", 1, "tensorrt", "the static cache has 1 tokens; a search needs at least 2"),
        ("bert", 40, "cpu", "a static cache is for TensorRT.* leave --static-cache out, or give --target tensorrt"),
        ("bert", 40, "cuda", "for CUDA the steps can be recorded.*leave --static-cache out, or give --target tensorrt"),
        ("prophetnet", 40, "tensorrt", "prophetnet cannot have a static cache: its cached path takes no mask"),
    ],
)
def test_a_cache_that_cannot_be_had_is_refused(
    family: str, length: int, target: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export(composite(family), tmp_path / "x", precision=replace(FOR_TENSORRT, target=target), static_cache=length)
    assert not list(tmp_path.iterdir())


def test_in_half_precision_it_is_of_half_precision(tmp_path: Path) -> None:
    model = composite("bert")
    bundle = export(model, tmp_path / "bundle", precision=FP16, static_cache=LENGTH)
    backend = OnnxRuntimeBackend(bundle, ONE_THREAD)
    assert backend.dtype(DECODER_WITH_PAST, "past.0.key") == np.float16
    assert bundle.manifest.decoder.cache == "static"
    assert bundle.manifest.verification.token_agreement >= 0.98
    assert obstacles(bundle.path(f"{DECODER_WITH_PAST}.onnx")) == []
    for graph in GRAPHS:
        assert engine_bytes(bundle, graph) > 0
