"""Test that the libraries print nothing, and that the commands show warnings on stderr."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import speech_export.cli.export
import speech_export.export_bundle
import speech_runtime.cli.transcribe
from handmade_bundle import make_bundle
from speech_export import ExportError
from speech_runtime import AudioError, OnnxSpeechSeq2Seq


@pytest.mark.parametrize("package", ["speech_runtime", "speech_export"])
def test_a_library_prints_nothing(package: str) -> None:
    code = f"import logging, {package}; logging.getLogger('{package}.part').warning('a warning')"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == ("", "")


def test_speech_export_shows_warnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def export(*_: Any, **__: Any) -> None:
        speech_export.export_bundle.logger.warning("The runtime does not know %s", "XExtractor")
        speech_export.export_bundle.logger.info("a remark")
        raise ExportError("no more is needed here")

    monkeypatch.setattr(speech_export.export_bundle, "export", export)
    monkeypatch.setattr(speech_export.cli.source_flags.Source, "load", lambda _: None)
    for _ in range(2):  # the handler of the first run is gone
        result = CliRunner().invoke(speech_export.cli.export.main, ["model", "-o", str(tmp_path / "bundle")])
        assert result.stderr.count("\nWarning: The runtime does not know XExtractor\n") == 1
        assert "a remark" not in result.stderr
        assert result.stdout == ""
    assert [type(handler) for handler in logging.getLogger("speech_export").handlers] == [logging.NullHandler]


def test_speech_transcribe_shows_warnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def warn(*_: Any, **__: Any) -> Iterator[Any]:
        logging.getLogger("speech_runtime.backends.onnxruntime.optimized_graphs").warning("The cache cannot be written")
        return iter([AudioError("nothing is heard")])

    bundle = make_bundle(tmp_path / "bundle")
    monkeypatch.setattr(OnnxSpeechSeq2Seq, "transcribe_iter", warn)
    result = CliRunner().invoke(speech_runtime.cli.transcribe.main, [str(bundle), "clip.wav"])
    assert result.stderr.splitlines()[0] == "Warning: The cache cannot be written"
    assert [type(handler) for handler in logging.getLogger("speech_runtime").handlers] == [logging.NullHandler]
