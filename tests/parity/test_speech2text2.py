"""Test Speech2Text2 checkpoints against transformers 4.34, the last version with that model."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from conftest import CHECKPOINT, ONE_THREAD, REPOSITORY
from speech_export import ExportError, export
from speech_export.limits import Limits
from speech_export.sources.checkpoint import load_checkpoint
from speech_export.sources.composite import Composite
from speech_export.sources.hub import DEFAULT_HUB, load_tokenizer
from speech_export.sources.legacy.speech2text2 import speech2text2_config
from speech_runtime import OnnxSpeechSeq2Seq

pytestmark = pytest.mark.usefixtures("short_verification")

FIXTURE = REPOSITORY.parent / "shared" / "fixtures" / "speech2text2"
SEARCHES = {"greedy": {"num_beams": 1}, "beam4x2": {"num_beams": 4, "num_return_sequences": 2}}
VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{token}{'@@' if token % 3 else ''}" for token in range(4, 99))]

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint with an extractor and with a tokenizer of transformers 4."""
    if not FIXTURE.exists():
        pytest.skip(f"the checkpoint is not there: {FIXTURE}")
    directory = tmp_path_factory.mktemp("speech2text2")
    for name in ("config.json", "generation_config.json", "pytorch_model.bin"):
        shutil.copy(FIXTURE / name, directory)
    shutil.copy(CHECKPOINT / "preprocessor_config.json", directory)
    (directory / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(VOCABULARY)}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Speech2Text2Tokenizer"}))
    return directory


@pytest.fixture(scope="module")
def oracle(checkpoint: Path) -> Arrays:
    """Return the answers of transformers 4.34 for two clips."""
    return dict(np.load(FIXTURE / "oracle.npz"))


@pytest.fixture(scope="module")
def composite(checkpoint: Path) -> Composite:
    return load_checkpoint(str(checkpoint))


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(checkpoint / "pytorch_model.bin", weights_only=True)
    return loaded


def logits(composite: Composite, oracle: Arrays) -> torch.Tensor:
    names = ("input_values", "attention_mask", "decoder_input_ids")
    with torch.no_grad():
        found: torch.Tensor = composite.model(**{name: torch.from_numpy(oracle[name]) for name in names}).logits
    return found


def test_logits_are_the_same(composite: Composite, oracle: Arrays) -> None:
    torch.testing.assert_close(logits(composite, oracle), torch.from_numpy(oracle["logits"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("search", SEARCHES)
def test_tokens_are_the_same(composite: Composite, oracle: Arrays, search: str) -> None:
    inputs, mask = (torch.from_numpy(oracle[name]) for name in ("input_values", "attention_mask"))
    found = composite.model.generate(inputs, attention_mask=mask, max_new_tokens=12, **SEARCHES[search])
    np.testing.assert_array_equal(found.numpy(), oracle[search])


def test_the_position_table_is_that_of_the_checkpoint(composite: Composite, checkpoint: Path) -> None:
    found = composite.model.decoder.model.decoder.embed_positions.weights
    expected = weights(checkpoint)["decoder.model.decoder.embed_positions.weights"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_its_own_is_told_from_a_tied_one(
    composite: Composite, checkpoint: Path, oracle: Arrays, tied: bool, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    config, state = json.loads((copied / "config.json").read_text()), weights(checkpoint)
    config["decoder"]["tie_word_embeddings"] = tied
    if tied:
        del state["decoder.lm_head.weight"]
    else:
        state["decoder.lm_head.weight"] = state["decoder.lm_head.weight"] * 2
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "pytorch_model.bin").unlink()
    save_file(state, copied / "model.safetensors", {"format": "pt"})
    expected = torch.from_numpy(oracle["logits"]) * (1 if tied else 2)
    torch.testing.assert_close(logits(load_checkpoint(str(copied)), oracle), expected, atol=2e-4, rtol=0)


def test_missing_weights_are_named(checkpoint: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    torch.save({name: w for name, w in weights(checkpoint).items() if "encoder_attn." not in name}, copied / "w")
    (copied / "w").rename(copied / "pytorch_model.bin")
    with pytest.raises(ExportError, match="lacks 16 of the model's weights: decoder.*encoder_attn.* and 13 more"):
        load_checkpoint(str(copied))


def test_the_export_says_the_same(composite: Composite, checkpoint: Path, oracle: Arrays, tmp_path: Path) -> None:
    # Weights are spread so wide that float32 itself is good for 6e-4 in a log-probability.
    export(composite, tmp_path / "bundle", limits=Limits(logprob_difference=1e-3))
    exported = OnnxSpeechSeq2Seq.from_pretrained(tmp_path / "bundle", options=ONE_THREAD)
    tokenizer, batch = load_tokenizer(str(checkpoint), DEFAULT_HUB), (oracle["input_values"], oracle["attention_mask"])
    for search, settings in SEARCHES.items():
        found = exported.generate(*batch, max_new_tokens=12, **settings)
        np.testing.assert_array_equal(found, oracle[search])
        assert exported.tokenizer is not None
        for ids in found.tolist():
            text = exported.tokenizer.decode(ids, skip_special_tokens=True)
            assert text == tokenizer.decode(ids, skip_special_tokens=True) != ""
    found_logits = exported.forward(*batch, decoder_input_ids=oracle["decoder_input_ids"]).logits
    np.testing.assert_allclose(found_logits, oracle["logits"], atol=1e-4, rtol=0)


def test_what_a_configuration_leaves_out_has_the_defaults_of_transformers_4() -> None:
    halves = {"encoder": {"model_type": "wav2vec2"}, "decoder": {"model_type": "speech_to_text_2"}}
    config = speech2text2_config({"model_type": "speech-encoder-decoder", **halves})
    assert config is not None
    decoder = config.decoder
    assert (decoder.vocab_size, decoder.d_model, decoder.decoder_layers, decoder.decoder_ffn_dim) == (
        10000,
        256,
        6,
        2048,
    )
    assert (decoder.decoder_attention_heads, decoder.activation_function, decoder.scale_embedding) == (4, "relu", True)
    assert (decoder.max_position_embeddings, decoder.use_learned_position_embeddings) == (1024, False)
    assert (decoder.pad_token_id, decoder.decoder_start_token_id, decoder.layernorm_embedding) == (1, 2, False)


@pytest.mark.parametrize("settings", [{}, {"model_type": "bert"}, {"decoder": {"model_type": "bert"}}, {"decoder": 3}])
def test_other_configurations_are_left_alone(settings: dict[str, Any]) -> None:
    assert speech2text2_config(settings) is None
