"""Test decoders whose beams share a cache: transformers' tokens and log-probabilities, whatever is in unused slots."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from composites import DECODERS, PAD, composite
from conftest import CHECKPOINT, ONE_THREAD, ExportOnce, Pair
from cuda_placement import obstacles
from cuda_rules import violations
from matrix import clip_lengths, padded_batch
from speech_export import export
from speech_export.families import decoder_family
from speech_export.precision.options import PrecisionOptions
from speech_export.tracing.facts import decoder_facts, encoder_width
from speech_export.verification.reference import Oracle
from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.bundle.graph_io import DECODER_INIT, DECODER_WITH_PAST
from speech_runtime.bundle.loading import Bundle
from speech_runtime.cli.describe import describe
from speech_runtime.generation.decoding import decoder
from speech_runtime.generation.decoding.caches import tree
from speech_runtime.generation.decoding.caches.tree import TreeBuffers, TreeCache
from speech_runtime.generation.decoding.decoder import CachedDecoder
from speech_runtime.generation.search.base import Candidates

pytestmark = pytest.mark.usefixtures("short_verification", "traced_once")

FOR_CUDA = PrecisionOptions(target="cuda")
WITHOUT = {"prophetnet"}
"""Families whose cache grows."""

USUAL = {"bert", "roberta", "whisper", "trocr"}
FAMILIES = [
    pytest.param(family, marks=[] if family in USUAL else [pytest.mark.full])
    for family in DECODERS
    if family not in WITHOUT
]
STEPS, BATCH, FRAMES = 24, 2, 17

Tokens = NDArray[np.int64]


@pytest.fixture(scope="module")
def exported(export_once: ExportOnce) -> Callable[[str], Bundle]:
    """The bundle of a tiny random composite, whose beams share a cache."""
    return lambda family: Bundle.open(export_once(f"{family}-tree", composite(family), precision=FOR_CUDA))


@pytest.fixture
def few_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with so few slots that each search needs more several times."""
    monkeypatch.setattr(tree, "ROOM", 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_searches_find_what_transformers_finds(exported: Callable[[str], Bundle], family: str, few_slots: None) -> None:
    bundle = exported(family)
    assert bundle.manifest.decoder.cache == "tree"
    assert "beams share a cache" in describe(bundle)
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


class BesideTorch:
    """Random steps of a decoder, and the sequences that torch is given as a whole."""

    def __init__(self, bundle: Bundle, family: str) -> None:
        self.model = composite(family)
        random = np.random.default_rng(0)
        self.encoded = random.standard_normal((BATCH, FRAMES, encoder_width(self.model))).astype(np.float32)
        self.mask = (np.arange(FRAMES) < np.array([FRAMES, 11])[:, None]).astype(np.int64)
        backend, facts = OnnxRuntimeBackend(bundle, ONE_THREAD), bundle.manifest.decoder
        states, mask = backend.upload(self.encoded), backend.upload(self.mask)
        self.decoder = CachedDecoder(backend, facts, BATCH, states, mask)
        self.active = np.arange(BATCH)
        self.sequences = np.zeros((BATCH, 1, 0), dtype=np.int64)

    def start(self, prompt: Tokens) -> NDArray[np.float32]:
        self.sequences = prompt[:, None]
        return scores_of(self.decoder.start(prompt, full_vocab=True))

    def step(self, tokens: Tokens, beam_idx: Tokens) -> NDArray[np.float32]:
        kept = np.take_along_axis(self.sequences, beam_idx[:, :, None], axis=1)
        self.sequences = np.concatenate([kept, tokens[:, :, None]], axis=2)
        return scores_of(self.decoder.step(tokens.tolist(), beam_idx.tolist(), full_vocab=True))

    def select_utterances(self, utterances: NDArray[np.int64]) -> None:
        self.decoder.select_utterances(utterances.tolist())
        self.active, self.sequences = self.active[utterances], self.sequences[utterances]

    def expected(self) -> torch.Tensor:
        """Torch's logits of all tokens of every beam, from the whole sequences: [utterances, beams, tokens, words]."""
        beams = self.sequences.shape[1]
        encoded, mask = (
            torch.from_numpy(array[self.active]).repeat_interleave(beams, 0) for array in (self.encoded, self.mask)
        )
        reference = self.model.decoder
        with torch.no_grad(), decoder_family(reference).adapt(reference):
            logits = reference(
                input_ids=torch.from_numpy(self.sequences).flatten(0, 1),
                encoder_hidden_states=encoded,
                encoder_attention_mask=mask,
                use_cache=False,  # transformers' own would have as many layers as a BART's encoder
            ).logits
        return torch.stack(logits.split(beams))


def scores_of(found: list[Candidates]) -> NDArray[np.float32]:
    """Scores [utterances, beams, words] of a step."""
    return np.concatenate([candidates.scores for candidates in found])


def assert_same(logits: NDArray[np.float32], expected: torch.Tensor) -> None:
    """Their log-probabilities are the same."""
    found = torch.log_softmax(torch.from_numpy(logits), dim=-1)
    torch.testing.assert_close(found, torch.log_softmax(expected, dim=-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_says_what_torch_says(exported: Callable[[str], Bundle], family: str, few_slots: None) -> None:
    both, random = BesideTorch(exported(family), family), np.random.default_rng(1)
    assert_same(both.start(random.integers(4, 90, (BATCH, 3))), both.expected()[:, :, -1])
    for step in range(STEPS):
        if step == STEPS // 2:  # one of the utterances is done
            both.select_utterances(np.array([1]))
        rows, beams = len(both.active), 4
        kept = random.integers(0, 1 if step == 0 else beams, (rows, beams))
        assert_same(both.step(random.integers(4, 90, (rows, beams)), kept), both.expected()[:, :, -1])


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_texts_are_beams_that_do_not_see_each_other(exported: Callable[[str], Bundle], family: str) -> None:
    both = BesideTorch(exported(family), family)
    both.sequences = np.random.default_rng(1).integers(4, 90, (BATCH, 5, 7))
    logits = both.decoder.logits(both.sequences[:, 0])
    assert_same(logits, both.expected()[:, 0])
    both.decoder._cache = both.decoder._new_cache(BATCH)
    bound = both.decoder._cache.bind(both.sequences, [[0] * 5] * BATCH)
    (found,) = both.decoder._run(bound, ("logits",))
    assert_same(found, both.expected())


def test_many_texts_are_decoded_a_few_at_a_time(
    exported: Callable[[str], Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "_COMPARED", 15)
    both = BesideTorch(exported("bert"), "bert")
    both.select_utterances(np.array([1]))
    both.sequences = np.random.default_rng(1).integers(4, 90, (1, 5, 7))
    bind, widths = TreeCache.bind, []

    def noted(cache: TreeCache, input_ids: Tokens, beam_idx: Any) -> Any:
        widths.append(input_ids.shape[1])
        return bind(cache, input_ids, beam_idx)

    monkeypatch.setattr(TreeCache, "bind", noted)
    assert_same(both.decoder.logits_of_beams(both.sequences[0]), both.expected()[0])
    assert widths == [2, 2, 1]


def test_padding_in_a_prompt_has_the_position_that_roberta_gives_it(exported: Callable[[str], Bundle]) -> None:
    both = BesideTorch(exported("roberta"), "roberta")
    both.sequences = np.random.default_rng(1).integers(4, 90, (BATCH, 1, 7))
    both.sequences[0, 0, 2] = both.sequences[1, 0, 3:5] = PAD
    assert_same(both.decoder.logits(both.sequences[:, 0]), both.expected()[:, 0])


def test_sampling_draws_what_a_growing_cache_draws(exported: Callable[[str], Bundle], export_once: ExportOnce) -> None:
    growing = Bundle.open(export_once("bert-growing", composite("bert"), precision=PrecisionOptions(target="tensorrt")))
    facts = growing.manifest.encoder
    inputs, mask = padded_batch(facts, clip_lengths(facts))
    settings: dict[str, Any] = {"do_sample": True, "top_k": 8, "num_return_sequences": 3, "max_new_tokens": STEPS}
    found, expected = (
        OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=ONE_THREAD).generate(
            inputs, mask, generator=np.random.default_rng(3), **settings
        )
        for bundle in (exported("bert"), growing)
    )
    np.testing.assert_array_equal(found, expected)


def test_what_is_in_unused_slots_does_not_matter(
    exported: Callable[[str], Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = exported("bert")
    inputs, mask = padded_batch(bundle.manifest.encoder, clip_lengths(bundle.manifest.encoder))
    settings: dict[str, Any] = {"num_beams": 4, "max_new_tokens": STEPS, "return_dict_in_generate": True}
    model = OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=ONE_THREAD)
    expected = model.generate(inputs, mask, **settings)
    filled = []

    def fill(buffers: TreeBuffers, slots: int) -> None:
        for tensor in buffers.cache(slots):
            garbage = np.random.default_rng(0).uniform(-1e4, 1e4, tensor.shape()).astype(np.float32)
            buffers._backend.write(tensor, garbage)
            filled.append(tensor)

    monkeypatch.setattr(TreeBuffers, "fill", fill)
    found = model.generate(inputs, mask, **settings)
    assert filled
    np.testing.assert_array_equal(found.sequences, expected.sequences)
    np.testing.assert_array_equal(found.sequences_scores, expected.sequences_scores)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_in_the_way_of_a_cuda_graph(exported: Callable[[str], Bundle], family: str) -> None:
    bundle = exported(family)
    path = bundle.path(f"{DECODER_WITH_PAST}.onnx")
    assert (obstacles(path), violations(path)) == ([], [])
    assert dynamic_sizes(path) == {"batch", "beams", "tokens", "queries", "slots", "frames"}
    assert dynamic_sizes(bundle.path(f"{DECODER_INIT}.onnx")) == {"batch", "frames"}


def dynamic_sizes(path: Path) -> set[str]:
    graph = onnx.load(path).graph
    sizes = (size.dim_param for value in (*graph.input, *graph.output) for size in value.type.tensor_type.shape.dim)
    return {size for size in sizes if size}


def test_real_clips_of_which_some_end_early(export_once: ExportOnce, digits: Pair, references: dict[Path, str]) -> None:
    directory = export_once("digits-tree", CHECKPOINT, precision=FOR_CUDA)
    model = OnnxSpeechSeq2Seq.from_pretrained(directory, options=ONE_THREAD)
    clips = [model.load(path) for path in sorted(references, key=lambda path: len(references[path]))]
    found, expected = (
        [heard.text for heard in each.transcribe_iter(clips, batch_size=len(clips), num_beams=4)]
        for each in (model, digits.exported)
    )
    assert found == expected


@pytest.mark.parametrize("family", ["bert", *WITHOUT])
def test_a_family_that_cannot_share_a_cache_gets_one_that_grows(family: str) -> None:
    model = composite(family)
    facts = decoder_facts(model, top_k=4, shared=True)
    assert facts.cache == ("growing" if family in WITHOUT else "tree")
    assert replace(facts, cache="growing") == decoder_facts(model, top_k=4)


@pytest.mark.full
def test_the_export_says_why_a_cache_grows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        bundle = export(composite("prophetnet"), tmp_path / "bundle", precision=FOR_CUDA)
    assert bundle.manifest.decoder.cache == "growing"
    assert "The cache of prophetnet grows from step to step, so its steps cannot be recorded" in caplog.text
    assert "its cached path takes no mask" in caplog.text
