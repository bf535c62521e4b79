"""Test planted pickles under every file name that is opened: none is unpickled; each is ignored or refused by name."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handmade_bundle import make_bundle
from speech_export import ExportError
from speech_export.sources.checkpoint import load_checkpoint
from speech_export.sources.legacy.flax_file import read_arrays
from speech_runtime import AudioError, Bundle, BundleError, OnnxSpeechSeq2Seq, SessionOptions, SpeechError
from speech_runtime.audio import clip_of
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.manifest import MANIFEST
from speech_runtime.bundle.safe_files import FileFacts
from tiny_checkpoint import Copies, save_tiny

ENDINGS = (".pkl", ".pickle", ".npy", ".npz", ".pt", ".pth", ".bin", ".ckpt", ".joblib")
STEMS = (
    *("model", "pytorch_model", "weights", "config", "tokenizer", "vocab", "preprocessor_config", "mel_filters"),
    *("generation_config", "training_args", "optimizer", "scheduler", "special_tokens_map", "bundle", "files"),
    *("adapter_model", "flax_model", "tf_model", *GRAPHS),
)
OF_CHECKPOINTS = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json", "flax_model.msgpack", "adapter_config.json"),
    *("chat_template.jinja", "feature_extractor_config.json", "adapter_model.bin"),
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "flax_model.msgpack")
"""Those that are looked for one after the other: each is alone with its payload."""


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, written: Path) -> None:
        self._written = str(written)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._written,)


def _saved(save: Callable[[Any, Any], object], value: Any) -> bytes:
    file = io.BytesIO()
    save(file, value)
    return file.getvalue()


FORMS: dict[str, Callable[[Payload], bytes]] = {
    "pickle": pickle.dumps,
    "old pickle": lambda payload: pickle.dumps(payload, protocol=0),
    "npy": lambda payload: _saved(np.save, np.array([payload], dtype=object)),
    "npz": lambda payload: _saved(lambda file, value: np.savez(file, a=value), np.array([payload], dtype=object)),
    "torch": lambda payload: _saved(lambda file, value: torch.save(value, file), {"weight": payload}),
    "old torch": lambda payload: _saved(
        lambda file, value: torch.save(value, file, _use_new_zipfile_serialization=False), {"weight": payload}
    ),
}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "written"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def copies(tiny: Path, tmp_path: Path) -> Copies:
    (tmp_path / "copies").mkdir()
    return Copies(tiny, tmp_path / "copies")


def plant(directory: Path, content: bytes) -> None:
    """Put `content` beside what is there, under every name with every ending."""
    for stem in STEMS:
        for ending in ENDINGS:
            if not (directory / f"{stem}{ending}").exists():
                (directory / f"{stem}{ending}").write_bytes(content)


READERS: dict[str, Callable[..., Any]] = {
    "pickle": pickle.loads,
    "old pickle": pickle.loads,
    "npy": lambda content: np.load(io.BytesIO(content), allow_pickle=True),
    "npz": lambda content: np.load(io.BytesIO(content), allow_pickle=True)["a"],
    "torch": lambda content: torch.load(io.BytesIO(content), weights_only=False),
    "old torch": lambda content: torch.load(io.BytesIO(content), weights_only=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_payload_works(form: str, written: Path) -> None:
    """Otherwise the other tests could not fail."""
    READERS[form](FORMS[form](Payload(written)))
    assert written.exists()


@pytest.mark.parametrize("form", FORMS)
def test_beside_a_checkpoint(form: str, copies: Copies, written: Path) -> None:
    copy = copies()
    plant(copy, FORMS[form](Payload(written)))
    load_checkpoint(str(copy))
    assert not written.exists()


@pytest.mark.parametrize("form", FORMS)
def test_in_place_of_a_checkpoints_file(form: str, copies: Copies, written: Path) -> None:
    for name in OF_CHECKPOINTS:
        copy = copies()
        if name in WEIGHTS:
            (copy / "model.safetensors").unlink()
        (copy / name).write_bytes(FORMS[form](Payload(written)))
        said = None
        try:
            load_checkpoint(str(copy))
        except ExportError as error:
            said = str(error)
        if said is None:  # the file is ignored
            assert name not in (*WEIGHTS, "config.json", "preprocessor_config.json", "tokenizer.json"), name
        else:
            assert str(copy) in said, name
        assert not written.exists(), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
def test_in_place_of_an_adapters_file(name: str, form: str, tiny: Path, tmp_path: Path, written: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "target_modules": ["query"]}')
    (tmp_path / name).write_bytes(FORMS[form](Payload(written)))
    with pytest.raises(ExportError, match=rf"{tmp_path}.*{name}"):
        load_checkpoint(str(tiny), adapter=str(tmp_path))
    assert not written.exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_language(form: str, tmp_path: Path, written: Path) -> None:
    checkpoint = save_tiny(tmp_path / "tiny", encoder="wav2vec2, MMS")
    for ending in ("safetensors", "bin"):
        (checkpoint / f"adapter.fra.{ending}").write_bytes(FORMS[form](Payload(written)))
        with pytest.raises(ExportError, match=f"adapter.fra.{ending}"):
            load_checkpoint(str(checkpoint), target_lang="fra")
        (checkpoint / f"adapter.fra.{ending}").unlink()
    assert not written.exists()


@pytest.mark.parametrize("form", FORMS)
def test_within_flax_weights(form: str, tmp_path: Path, written: Path) -> None:
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(FORMS[form](Payload(written)))
    with pytest.raises(ExportError, match=str(path)):
        read_arrays(path)
    assert not written.exists()


@pytest.mark.parametrize("form", FORMS)
def test_beside_a_bundle(form: str, tmp_path: Path, written: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    plant(bundle, FORMS[form](Payload(written)))
    OnnxSpeechSeq2Seq.from_pretrained(bundle)
    assert not written.exists()


@pytest.mark.parametrize("form", FORMS)
def test_in_place_of_a_bundles_file(form: str, tmp_path: Path, written: Path) -> None:
    for name in (*Bundle.open(make_bundle(tmp_path / "whole", external_data=True)).manifest.files, MANIFEST):
        bundle = make_bundle(tmp_path / name, external_data=True)
        (bundle / name).write_bytes(FORMS[form](Payload(written)))
        with pytest.raises(BundleError, match=name):
            OnnxSpeechSeq2Seq.from_pretrained(bundle)
        if name == MANIFEST:
            continue
        manifest = json.loads((bundle / MANIFEST).read_text())
        manifest["files"][name] = vars(FileFacts.of(bundle / name))
        (bundle / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(SpeechError, match=name.removesuffix(".data")):
            OnnxSpeechSeq2Seq.from_pretrained(bundle)
    assert not written.exists()


@pytest.mark.parametrize("form", FORMS)
def test_in_a_cache_of_optimised_graphs(
    form: str, tmp_path: Path, written: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, cache = make_bundle(tmp_path / "bundle"), tmp_path / "cache"
    options = SessionOptions(optimized_model_cache=cache)
    OnnxSpeechSeq2Seq.from_pretrained(bundle, options=options)
    entries = list(cache.iterdir())
    for directory in (cache, *entries):
        plant(directory, FORMS[form](Payload(written)))
    for entry in entries:
        for path in [path for path in entry.iterdir() if path.suffix in (".onnx", ".data", ".json")]:
            path.write_bytes(FORMS[form](Payload(written)))
    OnnxSpeechSeq2Seq.from_pretrained(bundle, options=options)
    assert "is not used, and written again" in caplog.text
    assert not written.exists()


@pytest.mark.parametrize("form", FORMS)
def test_as_audio(form: str, tmp_path: Path, written: Path) -> None:
    content = FORMS[form](Payload(written))
    for ending in (*ENDINGS, ".wav", ".flac", ".mp3"):
        path = tmp_path / f"clip{ending}"
        path.write_bytes(content)
        for audio in (path, content):
            with pytest.raises(AudioError):
                clip_of(audio, None, str(path)).load(16000, None)
    assert not written.exists()


def test_a_zip_within_a_checkpoint_is_no_import_path(copies: Copies, written: Path) -> None:
    copy = copies()
    with zipfile.ZipFile(copy / "transformers.zip", "w") as archive:
        archive.writestr("transformers/__init__.py", f"import os\nos.mkdir({str(written)!r})\n")
    load_checkpoint(str(copy))
    assert not written.exists()
