"""Test `speech_export.optimum`: loading, saving and uploading; tests/parity/test_pipelines.py has what it computes."""

import filecmp
import gc
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from optimum.modeling_base import OptimizedModel

from conftest import CHECKPOINT, Pair
from handmade_bundle import add_engine_set, make_bundle
from speech_export import ExportError, PrecisionOptions, optimum
from speech_export.optimum import OnnxModelForSpeechSeq2Seq
from speech_runtime import Bundle, BundleError, OnnxSpeechSeq2Seq


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of temporary files."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def same_files(one: Path, other: Path) -> bool:
    names = [path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file()]
    assert names
    there = [path.relative_to(other).as_posix() for path in other.rglob("*") if path.is_file()]
    return sorted(names) == sorted(there) and not any(filecmp.cmpfiles(one, other, names, shallow=False)[1:])


@pytest.mark.usefixtures("traced_once")
def test_an_export_is_kept_by_save_pretrained_only(temporary: Path, tmp_path: Path) -> None:
    model = OnnxModelForSpeechSeq2Seq.from_pretrained(CHECKPOINT, export=True, max_length=20)
    assert isinstance(model, OptimizedModel)
    assert model.generation_config.max_length == 20
    model.save_pretrained(tmp_path / "saved")
    (exported,) = temporary.glob("*/bundle")
    assert same_files(exported, tmp_path / "saved")
    del model
    gc.collect()
    assert list(temporary.iterdir()) == []
    saved = OnnxModelForSpeechSeq2Seq.from_pretrained(str(tmp_path / "saved"))
    assert (saved.config.model_type, saved.generation_config.max_length) == ("speech-encoder-decoder", 20)


def test_a_failed_export_leaves_nothing(temporary: Path) -> None:
    with pytest.raises(ExportError, match="top_k is 1"):
        OnnxModelForSpeechSeq2Seq.from_pretrained(CHECKPOINT, export=True, top_k=1)
    assert list(temporary.iterdir()) == []


def test_engines_are_saved_too(tmp_path: Path, digits: Pair) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    add_engine_set(bundle)
    (bundle / "notes.txt").write_text("no part of the bundle")
    (tmp_path / "saved").mkdir()
    model = OnnxModelForSpeechSeq2Seq(digits.exported, digits.directory, torch.device("cpu"))
    model._bundle = bundle
    model.save_pretrained(tmp_path / "saved")
    (bundle / "notes.txt").unlink()
    assert same_files(bundle, tmp_path / "saved")


def test_saving_replaces_bundles_only(tmp_path: Path, digits: Pair) -> None:
    model = OnnxModelForSpeechSeq2Seq.from_pretrained(digits.directory)
    other = make_bundle(tmp_path / "other")
    model.save_pretrained(other)
    assert Bundle.open(other).manifest == digits.exported.manifest
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="is not a bundle, and is not replaced"):
        model.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_it_is_uploaded_as_a_bundle(tmp_path: Path, digits: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads: list[dict[str, Any]] = []

    def push(directory: Path, name: str, **settings: Any) -> str:
        uploads.append({"files": same_files(digits.directory, directory), "name": name, **settings})
        return "https://hub/commit"

    monkeypatch.setattr(optimum, "push_to_hub", push)
    model = OnnxModelForSpeechSeq2Seq.from_pretrained(digits.directory)
    model.save_pretrained(tmp_path / "saved", push_to_hub=True, repository_id="me/digits", private=True)
    assert model.push_to_hub(tmp_path / "saved", "me/digits", token="secret") == "https://hub/commit"
    common = {"files": True, "name": "me/digits"}
    assert uploads == [{**common, "private": True, "token": None}, {**common, "private": None, "token": "secret"}]


def test_bundles_and_checkpoints_of_the_hub(digits: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(name: str, **where: Any) -> Path:
        asked.append((name, where))
        return digits.directory

    def load(name: str, hub: Any) -> None:
        asked.append((name, hub.keywords()))
        raise ExportError("asked")

    monkeypatch.setattr(optimum, "bundle_directory", download)
    monkeypatch.setattr(optimum, "load_checkpoint", load)
    where = {"revision": "v2", "token": "secret", "cache_dir": "/cache", "local_files_only": True}
    OnnxModelForSpeechSeq2Seq.from_pretrained("someone/bundle", **where)
    with pytest.raises(ExportError, match="asked"):
        OnnxModelForSpeechSeq2Seq.from_pretrained("someone/checkpoint", export=True, **where)
    assert asked == [("someone/bundle", {**where, "engines": False}), ("someone/checkpoint", where)]


def test_options_of_an_export_need_one(digits: Pair) -> None:
    with pytest.raises(BundleError, match=r"precision and top_k given for .*; give export=True too, and a checkpoint"):
        OnnxModelForSpeechSeq2Seq.from_pretrained(digits.directory, precision=PrecisionOptions(), top_k=8)
    with pytest.raises(BundleError, match="Export it first: speech-export"):
        OnnxModelForSpeechSeq2Seq.from_pretrained(CHECKPOINT)


def test_the_device_is_chosen_when_it_is_loaded(
    digits: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(OnnxSpeechSeq2Seq, "from_pretrained", lambda *_, **__: digits.exported)
    for device, expected in (("cpu", "cpu"), ("cuda:1", "cuda:1"), (0, "cuda:0"), ("tensorrt", "cuda:0")):
        loaded = OnnxModelForSpeechSeq2Seq.from_pretrained(digits.directory, device=device)
        assert loaded.device == torch.device(expected)
    on_gpu = OnnxModelForSpeechSeq2Seq.from_pretrained(digits.directory, device=torch.device("cuda", 1))
    assert on_gpu.to(torch.device("cuda", 0)) is on_gpu
    assert not caplog.text
    on_gpu.to("cpu")
    assert "The graphs run on cuda:1, where they were loaded, and not on cpu; choose the device when" in caplog.text


def test_tensors_of_any_float_are_taken(digits: Pair) -> None:
    model = OnnxModelForSpeechSeq2Seq.from_pretrained(digits.directory)
    samples = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0)).bfloat16()
    mask = torch.ones(2, 8000, dtype=torch.bool)
    assert torch.equal(model.generate(samples, mask), model.generate(input_values=samples.float()))


def test_without_optimum_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "speech_export.optimum")
    monkeypatch.setitem(sys.modules, "optimum.modeling_base", None)
    with pytest.raises(ModuleNotFoundError, match=r"optimum is needed for .*: pip install 'speech-export\[optimum\]'"):
        importlib.import_module("speech_export.optimum")


def test_what_optimum_itself_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "optimum").mkdir()
    (tmp_path / "optimum" / "modeling_base.py").write_text("import a_library_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "speech_export.optimum")
    monkeypatch.delitem(sys.modules, "optimum.modeling_base")
    with pytest.raises(ModuleNotFoundError, match="No module named 'a_library_that_is_not_there'"):
        importlib.import_module("speech_export.optimum")
