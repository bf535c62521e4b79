"""Test odd JSON beside a checkpoint (deep, huge, malformed): the file is named, quickly."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import CHECKPOINT
from speech_export import ExportError, export
from speech_export.sources.checkpoint import load_checkpoint
from speech_export.sources.configs import read_config
from speech_export.sources.hub import DEFAULT_HUB, load_tokenizer
from speech_export.sources.pair import load_pair

NESTED = '{"model_type": "bert", "a": ' + "[" * 100_000
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nested": (lambda path: path.write_text(NESTED), "cannot be read: its lists and objects are nested too deeply"),
    "twice": (
        lambda path: path.write_text('{"model_type": "bert", "a": 1, "a": 2}'),
        "cannot be read: it has the key 'a' twice",
    ),
    "too large": (
        lambda path: path.write_text('{"model_type": "bert", "a": 1e999}'),
        "cannot be read: the number 1e999 is too large",
    ),
    "no Unicode": (lambda path: path.write_bytes(b"\xff\xfe"), "cannot be read: 'utf-8'"),
}


@pytest.mark.parametrize("fault", [*FAULTS, "pipe", "link to nowhere", "list"])
def test_a_configuration_in_a_file(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "encoder.json"
    make, message = {
        **FAULTS,
        "pipe": (os.mkfifo, "cannot be read: is not a regular file"),
        "link to nowhere": (lambda path: path.symlink_to("nowhere"), "cannot be read: No such file"),
        "list": (lambda path: path.write_text("[]"), "is not a configuration of transformers: it has no model_type"),
    }[fault]
    make(path)
    with pytest.raises(ExportError, match=rf"{path} {message}.*; give a config\.json") as refused:
        read_config(str(path))
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("fault", ["nested", "twice", "too large"])
def test_a_configuration_on_the_command_line(fault: str, tmp_path: Path) -> None:
    make, message = FAULTS[fault]
    make(tmp_path / "text")
    with pytest.raises(ExportError, match=rf"the configuration .*{message}.*; give a config\.json") as refused:
        read_config((tmp_path / "text").read_text())
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("fault", [*FAULTS, "pipe", "words"])
def test_the_vocabulary_of_speech2text2(fault: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Speech2Text2Tokenizer"}))
    make, message = {
        **FAULTS,
        "pipe": (os.mkfifo, "there is no file vocab.json"),
        "words": (lambda path: path.write_text('{"a": "one"}'), "vocab.json is not a vocabulary"),
    }[fault]
    make(tmp_path / "vocab.json")
    with pytest.raises(ExportError, match=f"{message}.*; take the vocab.json that"):
        load_tokenizer(str(tmp_path), DEFAULT_HUB)


def test_a_file_is_no_checkpoint_and_its_directory_is_named() -> None:
    for load in (load_checkpoint, lambda name: load_pair(name, name), lambda name: load_tokenizer(name, DEFAULT_HUB)):
        with pytest.raises(ExportError, match=rf"config\.json is a file; give the directory .*: {CHECKPOINT}$"):
            load(str(CHECKPOINT / "config.json"))


def test_the_home_directory_is_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.json").write_text("[]")
    calls: list[Callable[[], object]] = [
        lambda: load_checkpoint("~/a.json"),
        lambda: load_pair("~/a.json", str(CHECKPOINT)),
        lambda: read_config("~/a.json"),
        lambda: export(str(CHECKPOINT), Path("~/a.json")),
        lambda: export(str(CHECKPOINT), "~/o", calibration_audio="~/a.json"),
    ]
    for call in calls:
        with pytest.raises(ExportError, match=f"{tmp_path}/a.json (is|cannot)"):
            call()


def test_paths_that_the_system_refuses_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for name, said in ((str(tmp_path / ("x" * 300)), "File name too long"), (str(loop), "symbolic links")):
        with pytest.raises(ExportError, match=f"{said}; check its name and permissions"):
            load_checkpoint(name)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ExportError, match="cannot be read: Permission denied; check its permissions"):
        load_checkpoint(str(tmp_path))
