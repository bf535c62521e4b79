"""Test Flax checkpoints against the stored answers of Flax: log-probabilities within 1e-4, and the same tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel

from conftest import ONE_THREAD, REPOSITORY
from speech_export import export
from speech_export.sources.hub import DEFAULT_HUB
from speech_export.sources.legacy.flax import load_flax
from speech_runtime import OnnxSpeechSeq2Seq

pytestmark = pytest.mark.usefixtures("short_verification")

DATA = REPOSITORY / "tests" / "data" / "flax"
BART = REPOSITORY.parent / "shared" / "fixtures" / "flax-bart"
CHECKPOINTS = [DATA / "bert", DATA / "gpt2", DATA / "roberta", BART]

Oracle = dict[str, Any]


def loaded(checkpoint: Path) -> tuple[SpeechEncoderDecoderModel, Oracle]:
    if not checkpoint.exists():
        pytest.skip(f"the checkpoint is not there: {checkpoint}")
    config = SpeechEncoderDecoderConfig.from_pretrained(checkpoint)
    model = load_flax(str(checkpoint), checkpoint / "flax_model.msgpack", config, DEFAULT_HUB)
    with np.load(checkpoint / "oracle.npz") as oracle:
        return model, dict(oracle)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.name)
def test_torch_answers_as_flax_did(checkpoint: Path) -> None:
    model, oracle = loaded(checkpoint)
    names = {"input_values", "attention_mask", "decoder_input_ids"} & set(oracle)
    with torch.no_grad():
        logits = model(**{name: torch.from_numpy(oracle[name]) for name in names}).logits
    np.testing.assert_allclose(logits, oracle["logits"], atol=1e-4, rtol=0)
    length = oracle["greedy"].shape[1]
    tokens = model.generate(torch.from_numpy(oracle["input_values"]), max_length=length, num_beams=1)
    np.testing.assert_array_equal(tokens, oracle["greedy"])


def test_the_exported_graphs_answer_as_flax_did(tmp_path: Path) -> None:
    model, oracle = loaded(BART)
    export(model, tmp_path / "bundle")
    exported = OnnxSpeechSeq2Seq.from_pretrained(tmp_path / "bundle", options=ONE_THREAD)
    inputs, expected = oracle["input_values"], oracle["logits"]
    encoded = exported.encode(inputs, np.ones(inputs.shape, np.int64))
    found = exported.forward(encoder_outputs=encoded, decoder_input_ids=oracle["decoder_input_ids"]).logits
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    greedy = exported.generate(inputs, max_length=oracle["greedy"].shape[1])
    np.testing.assert_array_equal(greedy, oracle["greedy"])
