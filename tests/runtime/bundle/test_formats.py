"""Bundles of this release's format and of the one before are read; all others are refused with the remedy.

The bundles in tests/data/bundles are frozen. A new format adds its own there, with a converter for the one before.
"""

import json
import logging
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ONE_THREAD, REPOSITORY
from speech_runtime import Bundle, BundleError, OnnxSpeechSeq2Seq
from speech_runtime.bundle import formats
from speech_runtime.bundle.formats import FORMAT_VERSION
from speech_runtime.bundle.manifest import MANIFEST, Manifest
from speech_runtime.cli.describe import describe

BUNDLES = REPOSITORY / "tests" / "data" / "bundles"
PREVIOUS, CURRENT = (BUNDLES / f"format-{version}" for version in (FORMAT_VERSION - 1, FORMAT_VERSION))
CLIPS, BEAMS, MAX_LENGTH = 2, 4, 16
"""As in tests/data/bundles/make_bundle.py."""


def copied(source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a bundle with another manifest."""
    shutil.copytree(source, target)
    content = json.loads((target / MANIFEST).read_text())
    change(content)
    (target / MANIFEST).write_text(json.dumps(content))
    return target


@pytest.mark.parametrize("directory", [PREVIOUS, CURRENT], ids=lambda path: path.name)
def test_bundles_of_both_formats_say_what_transformers_says(directory: Path) -> None:
    model = OnnxSpeechSeq2Seq.from_pretrained(directory, options=ONE_THREAD)
    with np.load(BUNDLES / "answers.npz") as answers:
        clips = [(16_000, answers[f"audio_{clip}"]) for clip in range(CLIPS)]
        for name, beams in (("greedy", 1), ("beams", BEAMS)):
            expected = [answers[f"{name}_{clip}"].tolist() for clip in range(CLIPS)]
            found = model.transcribe_all(clips, num_beams=beams, max_length=MAX_LENGTH)
            assert [result.tokens for result in found] == expected


def test_the_bundles_are_of_these_formats() -> None:
    for version, directory in ((FORMAT_VERSION - 1, PREVIOUS), (FORMAT_VERSION, CURRENT)):
        assert json.loads((directory / MANIFEST).read_text())["format_version"] == version


def test_a_description_names_the_format_on_disk() -> None:
    previous, current = (describe(Bundle.open(directory)).splitlines()[0] for directory in (PREVIOUS, CURRENT))
    assert f", format {FORMAT_VERSION - 1}, read as {FORMAT_VERSION})" in previous
    assert f", format {FORMAT_VERSION})" in current


def test_the_previous_format_is_converted_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = copied(PREVIOUS, tmp_path / "bundle", lambda manifest: manifest.update(source="someone/model"))
    before = (bundle / MANIFEST).read_bytes()
    with caplog.at_level(logging.WARNING):
        manifest = Bundle.open(bundle).manifest
    assert (bundle / MANIFEST).read_bytes() == before
    assert f"export it again: speech-export someone/model -o {bundle} --overwrite" in caplog.text
    now = Bundle.open(CURRENT).manifest
    assert (manifest.format_version, manifest.precision, manifest.target) == (FORMAT_VERSION, "fp32", "cpu")
    assert (now.format_version, now.precision, now.target) == (FORMAT_VERSION, "fp32", "cuda")
    assert manifest.encoder == now.encoder
    assert (manifest.decoder.cache, now.decoder.cache) == ("in_place", "tree")
    assert replace(manifest.decoder, cache="tree") == now.decoder


def test_a_converted_manifest_is_written_in_the_current_format(tmp_path: Path) -> None:
    bundle = copied(PREVIOUS, tmp_path / "bundle", lambda _: None)
    converted = Manifest.read(bundle)
    converted.write(bundle)
    assert json.loads((bundle / MANIFEST).read_text())["format_version"] == FORMAT_VERSION
    assert Bundle.open(bundle).manifest == converted


def test_the_current_format_is_read_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Bundle.open(CURRENT)
    assert not caplog.text


@pytest.mark.parametrize("installed_from", ["speech-export", "/home/a user/speech-export"])
@pytest.mark.parametrize("version", [FORMAT_VERSION - 2, -1, None, True, "2", 2.0, [2], 10**300])
def test_other_formats_are_refused_with_the_commands_that_help(
    version: object, installed_from: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "source", lambda: installed_from)

    def other(manifest: dict[str, Any]) -> None:
        manifest.update(format_version=version, source="someone/model", precision="fp16", target="cuda")

    bundle = copied(CURRENT, tmp_path / "a bundle", other)
    command = f"speech-export someone/model -o '{bundle}' --overwrite --precision fp16 --target cuda"
    with pytest.raises(BundleError) as refused:
        Bundle.open(bundle)
    text = str(refused.value)
    assert f"this release reads {FORMAT_VERSION - 1} and {FORMAT_VERSION}" in text
    assert text.endswith(f"export the model again with: {command}")
    upgrade = f"pip install --upgrade {shlex.quote(installed_from)}, or"
    assert (upgrade in text) == (type(version) is int and version > FORMAT_VERSION)


@pytest.mark.parametrize("source", [7, None, "a model in memory", "x; rm -rf ~", "line\nline"])
def test_a_source_that_is_no_checkpoint_is_not_in_the_command(source: object, tmp_path: Path) -> None:
    bundle = copied(CURRENT, tmp_path / "bundle", lambda manifest: manifest.update(format_version=99, source=source))
    with pytest.raises(BundleError, match=f"speech-export MODEL -o {bundle} --overwrite --target cuda$"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("encoder"), "encoder is missing"),
        (lambda m: m["encoder"].pop("stride"), "encoder.stride is missing"),
        (lambda m: m["encoder"].update(conv_stride=[5, 2, 2]), "encoder.conv_stride is not a known field"),
        (lambda m: m.update(decoder=None), "decoder is None, expected an object"),
        (lambda m: m["decoder"].pop("top_k"), "decoder.top_k is missing"),
    ],
)
def test_a_damaged_manifest_of_the_previous_format_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    bundle = copied(PREVIOUS, tmp_path / "bundle", change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle)
