"""The `speech-transcribe` command."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from conftest import Pair
from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.cli import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("options", [(), ("--batch-size", 5), ("--num-beams", 3, "--batch-size", 4)])
def test_text_alone_goes_to_stdout(digits: Pair, references: dict[Path, str], options: tuple[object, ...]) -> None:
    result = run(digits.directory, *references, *options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == list(references.values())
    assert result.stderr == ""


def test_json_has_tokens_score_and_seconds(digits: Pair, references: dict[Path, str]) -> None:
    files = list(references)[:3]
    result = run(digits.directory, *files, "--format", "json", "--num-beams", 2)
    entries = json.loads(result.stdout)
    assert [entry["text"] for entry in entries] == [references[file] for file in files]
    for entry, file in zip(entries, files, strict=True):
        assert entry["file"] == str(file)
        assert entry["tokens"][0] == 0
        assert entry["score"] < 0
        assert entry["audio_seconds"] == pytest.approx(soundfile.info(file).duration, abs=1e-3)
        assert entry["encode_seconds"] > 0
        assert entry["decode_seconds"] > 0
        assert 2**20 < entry["peak_rss_bytes"] < 2**40


def test_one_bad_file_does_not_stop_the_others(digits: Pair, references: dict[Path, str], tmp_path: Path) -> None:
    good, bad = list(references)[:2], []
    for name, samples in (("silent", np.zeros(16000)), ("short", 0.1 * np.ones(2)), ("empty", np.zeros(0))):
        bad.append(tmp_path / f"{name}.wav")
        soundfile.write(bad[-1], samples, 16000)
    bad.append(tmp_path / "text.wav")
    bad[-1].write_text("not audio")
    bad.append(tmp_path / "missing.wav")
    files = [good[0], *bad, good[1]]

    result = run(digits.directory, *files, "--batch-size", 3)
    assert result.exit_code == 1
    assert result.stdout.split("\n")[:-1] == [references[good[0]], *[""] * len(bad), references[good[1]]]
    for file, reason in zip(bad, ("silent", "silent", "empty", "cannot be read", "no such file"), strict=True):
        assert any(str(file) in line and reason in line for line in result.stderr.splitlines())
    assert "5 of 7 files could not be transcribed" in result.stderr

    entries = json.loads(run(digits.directory, *files, "--format", "json").stdout)
    assert [("error" in entry) for entry in entries] == [False, *[True] * 5, False]


def test_too_short_and_too_long_audio_is_named(digits: Pair, tmp_path: Path) -> None:
    short, long = tmp_path / "short.wav", tmp_path / "long.wav"
    noise = np.random.default_rng(0).standard_normal(3600 * 1000) * 0.1
    soundfile.write(short, noise[:1559], 16000)
    soundfile.write(long, noise, 1000)
    result = run(digits.directory, short, long)
    assert "short.wav: has 1,559 samples, the encoder needs at least 1,560" in result.stderr
    assert "long.wav: 1 × 57,600,000 samples would need about" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "x.wav"), "there is no directory nowhere"),
        ((".", "x.wav"), "is not a bundle"),
        (("nowhere",), "Missing argument 'FILES...'"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code != 0
    assert message in result.stderr


def test_too_many_tokens_are_refused(digits: Pair, references: dict[Path, str]) -> None:
    result = run(digits.directory, next(iter(references)), "--max-new-tokens", 65)
    assert result.exit_code == 1
    assert "set max_new_tokens to 64 or less" in result.stderr


def test_arrays_paths_and_lists_are_heard_alike(digits: Pair, references: dict[Path, str]) -> None:
    model: OnnxSpeechSeq2Seq = digits.exported
    path, text = next(iter(references.items()))
    samples, rate = soundfile.read(path, dtype="float32")
    assert model.transcribe(path) == text
    assert model.transcribe(samples, sampling_rate=rate) == text
    assert model.transcribe([str(path), samples.astype(np.float64)], sampling_rate=rate) == [text, text]
    assert model.transcribe([]) == []


def test_settings_are_followed(digits: Pair, references: dict[Path, str]) -> None:
    clip, text = next(iter(references.items()))
    assert run(digits.directory, clip, "--max-new-tokens", 1).stdout.strip() == text[0]
    samples = [
        run(digits.directory, clip, "--do-sample", "--temperature", 5, "--seed", seed).stdout for seed in (1, 1, 2)
    ]
    assert samples[0] == samples[1] != samples[2]
    numbers = json.dumps(list(range(5, 15)))
    assert run(digits.directory, clip, "--setting", f"suppress_tokens={numbers}").stdout.strip() != text
    for arguments, message in (
        (("--setting", "suppress_tokens"), "give NAME=JSON, it has no '='"),
        (("--setting", "stop_strings=one"), "'one' is no JSON; quote strings"),
        (("--setting", "surprise=1"), "surprise is not a known field"),
        (("--language", "de"), "no token for the language 'de'"),
        (("--top-p", 2), "top_p is 2.0, it must be above 0 and at most 1"),
    ):
        result = run(digits.directory, clip, *arguments)
        assert result.exit_code != 0
        assert message in result.stderr
