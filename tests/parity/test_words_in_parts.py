"""Test searches whose steps look for the best words part by part, as with a large vocabulary."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

import half_matrix
from composites import composite
from conftest import ONE_THREAD
from cuda_placement import obstacles
from cuda_rules import violations
from matrix import clip_lengths, padded_batch
from speech_export import export
from speech_export.precision.options import PrecisionOptions
from speech_export.tracing import best_words
from speech_export.verification.reference import Oracle
from speech_runtime import Bundle, OnnxSpeechSeq2Seq
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST

pytestmark = pytest.mark.usefixtures("short_verification")

STEPS, TOP_K = 24, 12


@pytest.fixture(scope="module")
def in_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny mBART with 90 words, in parts of 45."""
    directory = tmp_path_factory.mktemp("parts") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_words, "_WORTHWHILE", 80)
        patch.setattr(best_words, "_IN_ORDER", 40)
        assert best_words.parts_of(90, TOP_K) == 2
        export(composite("mbart"), directory, precision=PrecisionOptions(target="cuda"), top_k=TOP_K)
    return directory


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 1},
        {"num_beams": 4, "num_return_sequences": 2},
        {"num_beams": 4, "decoder_input_ids": [[1, 20, 30]] * 3},
        # These look at all words, which the graph returns too.
        {"num_beams": 7},
        {"num_beams": 3, "repetition_penalty": 1.3},
    ],
    ids=["greedy", "beams", "prompt", "more beams than candidates", "penalty"],
)
def test_searches_find_what_transformers_finds(in_parts: Path, settings: dict[str, Any]) -> None:
    model = OnnxSpeechSeq2Seq.from_pretrained(in_parts, options=ONE_THREAD)
    facts = Bundle.open(in_parts).manifest.encoder
    inputs, mask = padded_batch(facts, clip_lengths(facts))
    given = {**settings, "max_new_tokens": STEPS}
    expected = dict(given)
    if (prompt := given.pop("decoder_input_ids", None)) is not None:
        given["decoder_input_ids"] = np.array(prompt)[:, 1:]  # without the start token
        expected["decoder_input_ids"] = torch.tensor(prompt)
    found = model.generate(inputs, mask, **given)
    np.testing.assert_array_equal(found, Oracle(composite("mbart"), inputs, mask).generate(**expected))


def test_sampling_draws_what_a_growing_cache_draws(in_parts: Path, tmp_path: Path) -> None:
    growing = export(
        composite("mbart"), tmp_path / "bundle", precision=PrecisionOptions(target="tensorrt"), top_k=TOP_K
    )
    inputs, mask = padded_batch(growing.manifest.encoder, clip_lengths(growing.manifest.encoder))
    settings: dict[str, Any] = {"do_sample": True, "top_k": 8, "num_return_sequences": 3, "max_new_tokens": STEPS}
    found, expected = (
        OnnxSpeechSeq2Seq.from_pretrained(directory, options=ONE_THREAD).generate(
            inputs, mask, generator=np.random.default_rng(3), **settings
        )
        for directory in (in_parts, growing.directory)
    )
    np.testing.assert_array_equal(found, expected)


def test_the_step_can_be_recorded_and_sums_in_float32(in_parts: Path, tmp_path: Path) -> None:
    halved = half_matrix.make(in_parts, tmp_path)
    for bundle in (in_parts, halved.half):
        path = bundle / f"{DECODER_WITH_PAST}.onnx"
        assert (obstacles(path), violations(path)) == ([], [])
        found = Counter(node.op_type for node in ir.load(path).graph)
        assert found["TopK"] == 4
        assert not found["LogSoftmax"]
    assert halved.kept == frozenset()
    nodes = list(ir.load(halved.half / f"{DECODER_WITH_PAST}.onnx").graph)
    types = {node.op_type: node.inputs[0].dtype for node in nodes}
    assert (types["Exp"], types["ReduceSum"], types["Pad"]) == (
        ir.DataType.FLOAT,
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
    )
    assert sum(node.op_type == "Cast" for node in nodes) == 3  # the logits, the best ones, and the best of these
    found_drift = half_matrix.drift(halved, [half_matrix.noise(in_parts)])
    assert found_drift.next_tokens >= 0.98
    assert found_drift.largest <= 0.1
