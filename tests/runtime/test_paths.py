"""Test that `~` is the home directory in every path that a Python function takes, as it is in a shell."""

from pathlib import Path

import pytest

from conftest import CLIPS, Pair
from speech_runtime import AudioError, Bundle, OnnxSpeechSeq2Seq, SessionOptions
from speech_runtime.paths import expanded

CLIP = "02-espeak-us.wav"


def test_the_home_directory_is_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    for path in ("~/clip.wav", Path("~/clip.wav")):
        assert expanded(path) == "/home/someone/clip.wav"
    for path in ("clip.wav", "a/~/b", "owner/name", "~nobody-has-this-name/x", "~\0", "", "/~"):
        assert expanded(path) == path
    assert expanded(None) is None


@pytest.mark.parametrize("kind", [str, Path])
def test_audio_is_read_from_the_home_directory(
    digits: Pair, kind: type[str | Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(CLIPS))
    model, wanted = digits.exported, digits.exported.transcribe(CLIPS / CLIP)
    assert model.transcribe(kind(f"~/{CLIP}")) == wanted
    assert model.transcribe([kind(f"~/{CLIP}")] * 9) == [wanted] * 9  # sorted by length, which is read first
    assert model.transcribe({"path": f"~/{CLIP}"}) == wanted
    with pytest.raises(AudioError, match=f"^{CLIPS}/none.wav: "):
        model.transcribe("~/none.wav")


@pytest.mark.parametrize("kind", [str, Path])
def test_bundles_and_caches_are_in_the_home_directory(
    digits: Pair, kind: type[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bundle").symlink_to(digits.directory)
    assert Bundle.open(kind("~/bundle")).directory == tmp_path / "bundle"
    options = SessionOptions(optimized_model_cache=kind("~/cache"), profile=kind("~/profile"))
    OnnxSpeechSeq2Seq.from_pretrained(kind("~/bundle"), options=options)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "cache", "profile"}
