"""Test Flax checkpoints: every array is assigned or refused by name, and a damaged file is named."""

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from transformers import SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel

from conftest import CHECKPOINT, REPOSITORY
from speech_export import ExportError
from speech_export.sources.checkpoint import load_checkpoint
from speech_export.sources.hub import DEFAULT_HUB, HubOptions
from speech_export.sources.legacy import flax_file
from speech_export.sources.legacy.flax import find_flax_weights, load_flax_weights
from speech_export.sources.legacy.flax_file import read_arrays

DATA = REPOSITORY / "tests" / "data" / "flax"
FAMILIES = ("bert", "gpt2", "roberta")
BIAS = "encoder/feature_projection/projection/bias"
KERNEL = "encoder/feature_projection/projection/kernel"


def config_of(family: str) -> SpeechEncoderDecoderConfig:
    return SpeechEncoderDecoderConfig.from_pretrained(DATA / family)


def arrays_of(model: SpeechEncoderDecoderModel) -> dict[str, Any]:
    """The model's weights as Flax names and turns them, told from names and dimensions; tied ones once."""
    arrays, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        *folders, weight = name.split(".")
        array = tensor.numpy()
        if "parametrizations" in folders:
            folders, weight = folders[:-2], {"original0": "weight_g", "original1": "weight_v"}[weight]
        elif weight == "weight" and array.ndim == 1:
            weight = "scale"
        elif weight == "weight" and re.search("embeddings$|wte|wpe", folders[-1]):
            weight = "embedding"
        elif weight == "weight":
            weight, array = "kernel", array.transpose()
        arrays["/".join([*folders, weight])] = array
    return arrays


def packed(array: np.ndarray[Any, Any], dtype: str | None = None, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb((array.shape, dtype or array.dtype.name, array.tobytes())))


def write(path: Path, leaves: dict[str, Any]) -> Path:
    """Write a tree of arrays, and of anything else, as Flax does."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = packed(leaf) if isinstance(leaf, np.ndarray) else leaf
    path.write_bytes(msgpack.packb(tree))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flax_model.msgpack"


@pytest.fixture
def arrays() -> dict[str, Any]:
    """Those of the BERT checkpoint, to be changed by a test."""
    return read_arrays(DATA / "bert" / "flax_model.msgpack")


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_every_weight_comes_back(family: str, path: Path) -> None:
    model = SpeechEncoderDecoderModel(config_of(family))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    loaded = load_flax_weights(write(path, arrays_of(model)), config_of(family))
    assert not loaded.training
    found = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_positions_of_roberta_are_moved_to_where_torch_begins(path: Path) -> None:
    weights = read_arrays(DATA / "roberta" / "flax_model.msgpack")[
        "decoder/roberta/embeddings/position_embeddings/embedding"
    ]
    model = load_flax_weights(DATA / "roberta" / "flax_model.msgpack", config_of("roberta"))
    embeddings = model.decoder.roberta.embeddings
    first = embeddings.create_position_ids_from_input_ids(torch.tensor([[5]]), embeddings.padding_idx).item()
    found = embeddings.position_embeddings.weight.detach().numpy()
    np.testing.assert_array_equal(found[first:], weights[:-first])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_configuration_stays_as_it_was(family: str) -> None:
    config = config_of(family)
    before = config.to_dict()
    load_flax_weights(DATA / family / "flax_model.msgpack", config)
    assert config.to_dict() == before


def test_the_model_is_float32_whatever_the_configuration_says(path: Path, arrays: dict[str, Any]) -> None:
    config = config_of("bert")
    config.dtype = config.encoder.dtype = config.decoder.dtype = "bfloat16"
    model = load_flax_weights(write(path, arrays), config)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    np.testing.assert_array_equal(model.state_dict()["encoder.feature_projection.projection.bias"], arrays[BIAS])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_any_float_is_read(dtype: str, path: Path) -> None:
    array = np.linspace(-3, 3, 12).reshape(3, 4).astype(dtype)
    found = read_arrays(write(path, {"a/b": array}))["a/b"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


def test_bfloat16_is_widened(path: Path) -> None:
    tensor = torch.tensor([[1.5, -2.0, 3.0e38], [float("inf"), 1e-40, -0.0]]).bfloat16()
    leaf = packed(tensor.view(torch.int16).numpy(), "bfloat16")
    found = read_arrays(write(path, {"a": leaf}))["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, tensor.float().numpy())


def test_an_array_above_a_gibibyte_is_joined_again(path: Path) -> None:
    array = np.arange(30, dtype=np.float32).reshape(5, 6)
    pieces = {
        str(i): packed(piece) for i, piece in enumerate(np.split(array.ravel(), [4, 8, 12, 16, 20, 24, 26, 27, 28, 29]))
    }
    leaf = {flax_file._CHUNKED: True, "shape": {"0": 5, "1": 6}, "chunks": pieces}
    np.testing.assert_array_equal(read_arrays(write(path, {"a/b": leaf}))["a/b"], array)


def test_a_numpy_scalar_is_an_array_of_no_dimensions(path: Path) -> None:
    found = read_arrays(write(path, {"a": packed(np.array(2.5, np.float32), code=3)}))["a"]
    assert found.shape == ()
    assert found == 2.5


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\xc1", b"\x93\x01\x02\x03", pickle.dumps({"a": 1})],
)
def test_what_is_no_flax_checkpoint_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(ExportError, match=f"{path}.* (is empty|is truncated or no|it is no)"):
        read_arrays(path)


def test_a_file_cut_off_anywhere_is_refused(path: Path) -> None:
    whole = (DATA / "gpt2" / "flax_model.msgpack").read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ExportError, match=f"{path}.*copy or download it again"):
            read_arrays(path)


@pytest.mark.parametrize(
    "leaf",
    [
        packed(np.arange(3)),
        packed(np.zeros(3, np.float32), "object"),
        packed(np.zeros(3, np.float32), "float99"),
        msgpack.ExtType(1, msgpack.packb(([4], "float32", bytes(12)))),
        msgpack.ExtType(1, b"\x93"),
        msgpack.ExtType(1, msgpack.packb("text")),
        msgpack.ExtType(2, msgpack.packb((1.0, 2.0))),
        {flax_file._CHUNKED: True, "shape": {"0": 4}, "chunks": {"0": packed(np.zeros(3, np.float32))}},
        {flax_file._CHUNKED: True, "shape": {"0": 4}},
        3,
        None,
        [1.0],
    ],
    ids=repr,
)
def test_what_is_no_array_of_floats_is_refused_by_name(leaf: Any, path: Path) -> None:
    with pytest.raises(ExportError, match=f"{path}: some/weight is not an array of floats"):
        read_arrays(write(path, {"some/weight": leaf}))


def test_an_array_without_a_place_is_refused(path: Path, arrays: dict[str, Any]) -> None:
    arrays["encoder/quantizer/codevectors"] = np.zeros((2, 2), np.float32)
    with pytest.raises(
        ExportError, match=r"no place in the model for encoder/quantizer/codevectors; give it the config"
    ):
        load_flax_weights(write(path, arrays), config_of("bert"))


def test_a_weight_without_an_array_is_refused(path: Path, arrays: dict[str, Any]) -> None:
    del arrays[KERNEL]
    with pytest.raises(ExportError, match=f"no array for {KERNEL}; give it the config"):
        load_flax_weights(write(path, arrays), config_of("bert"))


def test_another_shape_is_refused(path: Path, arrays: dict[str, Any]) -> None:
    arrays[KERNEL] = arrays[KERNEL].T.copy()
    with pytest.raises(ExportError, match=re.escape(f"wrong shape: {KERNEL} is [8, 4], not [4, 8];")):
        load_flax_weights(write(path, arrays), config_of("bert"))


def test_all_problems_are_named_at_once_and_long_lists_shortened(path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"no place in the model for [^;]* and \d+ more; no array for .* and \d+ more;"
    ):
        load_flax_weights(DATA / "bert" / "flax_model.msgpack", config_of("gpt2"))


def test_the_embedding_for_masked_frames_is_not_needed(path: Path, arrays: dict[str, Any]) -> None:
    name = "encoder/masked_spec_embed"
    without_masking = config_of("bert")
    without_masking.encoder.mask_time_prob = without_masking.encoder.mask_feature_prob = 0.0
    assert name in arrays
    load_flax_weights(write(path, arrays), without_masking)
    del arrays[name]
    load_flax_weights(write(path, arrays), config_of("bert"))


def test_tied_weights_may_be_there_twice_if_they_agree(path: Path, arrays: dict[str, Any]) -> None:
    embedding, kernel = "decoder/bert/embeddings/word_embeddings/embedding", "decoder/cls/predictions/decoder/kernel"
    arrays[kernel] = arrays[embedding].T.copy()
    load_flax_weights(write(path, arrays), config_of("bert"))
    arrays[kernel][0, 0] += 1
    with pytest.raises(ExportError, match=f"tied to one another, but different: {kernel} and {embedding}"):
        load_flax_weights(write(path, arrays), config_of("bert"))


def test_a_configuration_of_no_composite_is_refused(path: Path, arrays: dict[str, Any]) -> None:
    config = config_of("bert")
    config.decoder.cross_attention_hidden_size = 99
    with pytest.raises(ExportError, match="config.json: no model can be made from it: .*cross_attention_hidden_size"):
        load_flax_weights(write(path, arrays), config)


def test_torch_weights_come_first(tmp_path: Path) -> None:
    assert find_flax_weights(str(tmp_path), DEFAULT_HUB) is None
    (tmp_path / "flax_model.msgpack").touch()
    assert find_flax_weights(str(tmp_path), DEFAULT_HUB) == tmp_path / "flax_model.msgpack"
    (tmp_path / "pytorch_model.bin.index.json").touch()
    assert find_flax_weights(str(tmp_path), DEFAULT_HUB) is None


def test_a_flax_checkpoint_of_the_hub_is_found_in_the_cache(tmp_path: Path) -> None:
    revision = "0" * 40
    repository = tmp_path / "models--someone--model"
    snapshot = shutil.copytree(DATA / "bert", repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    hub = HubOptions(cache_dir=str(tmp_path), offline=True)
    assert find_flax_weights("someone/model", hub) == snapshot / "flax_model.msgpack"
    assert load_checkpoint("someone/model", str(CHECKPOINT), hub).model.generation_config.eos_token_id == 2
    (snapshot / "model.safetensors").touch()
    assert find_flax_weights("someone/model", hub) is None
    assert find_flax_weights("someone/other", hub) is None


@pytest.mark.parametrize("older", [False, True])
def test_a_flax_checkpoint_is_a_checkpoint(tmp_path: Path, older: bool) -> None:
    """Older ones have their generation settings in config.json."""
    checkpoint = shutil.copytree(DATA / "bert", tmp_path / "checkpoint")
    if older:
        (checkpoint / "generation_config.json").unlink()
        config = json.loads((checkpoint / "config.json").read_text())
        (checkpoint / "config.json").write_text(json.dumps(config | {"max_length": 17}))
    composite = load_checkpoint(str(checkpoint), processor=str(CHECKPOINT))
    settings = composite.model.generation_config
    assert (settings.decoder_start_token_id, settings.pad_token_id, settings.eos_token_id) == (0, 1, 2)
    assert settings.max_length == (17 if older else None)
    assert composite.tokenizer is not None


def test_a_damaged_flax_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint = shutil.copytree(DATA / "bert", tmp_path / "checkpoint")
    (checkpoint / "flax_model.msgpack").write_bytes(b"")
    with pytest.raises(ExportError, match="checkpoint/flax_model.msgpack is empty"):
        load_checkpoint(str(checkpoint), processor=str(CHECKPOINT))
