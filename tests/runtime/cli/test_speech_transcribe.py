"""Test the `speech-transcribe` command."""

import csv
import io
import json
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

import speech_runtime.__main__
import speech_runtime.model
from conftest import Pair
from speech_runtime import AudioLimits, OnnxSpeechSeq2Seq, Transcription
from speech_runtime import input_checks as inputs
from speech_runtime.cli.transcribe import main
from speech_runtime.generation.config import GenerationSettings


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
    assert result.exit_code == 3
    assert result.stdout.split("\n")[:-1] == [references[good[0]], *[""] * len(bad), references[good[1]]]
    for file, reason in zip(bad, ("silent", "silent", "empty", "cannot be read", "no such file"), strict=True):
        assert any(str(file) in line and reason in line for line in result.stderr.splitlines())
    assert "5 of 7 files could not be transcribed" in result.stderr

    entries = json.loads(run(digits.directory, *files, "--format", "json").stdout)
    assert [("error" in entry) for entry in entries] == [False, *[True] * 5, False]


def test_too_short_and_too_long_audio_is_named(digits: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "free_memory_bytes", lambda: 2**30)
    short, long = tmp_path / "short.wav", tmp_path / "long.wav"
    noise = np.random.default_rng(0).standard_normal(3600 * 1000) * 0.1
    soundfile.write(short, noise[:1559], 16000)
    soundfile.write(long, noise, 1000)
    result = run(digits.directory, short, long)
    assert "short.wav: has 1,559 samples, the encoder needs at least 1,560" in result.stderr
    assert "long.wav: 1 × 57,600,000 samples or feature frames need 1.29 GiB" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "x.wav"), "there is no directory nowhere"),
        ((".", "x.wav"), "is not a bundle"),
        (("nowhere",), "Missing argument 'FILES...'"),
        (("nowhere", "x.wav", "--device", "gpu"), "unknown device 'gpu'; give one of cpu, cuda, tensorrt"),
        (("nowhere", "x.wav", "--device", "engines", "--threads", "2"), "--device engines runs without it"),
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
    assert "set --max-new-tokens to 64 or less" in result.stderr


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
    numbers = ",".join(map(str, range(5, 15)))
    assert run(digits.directory, clip, "--suppress-tokens", numbers).stdout.strip() != text
    for arguments, message in (
        (("--suppress-tokens", "one"), "'one' is not a list of token ids; write them as 5,6,7"),
        (("--bad-words-ids", "[[5"), "'[[5' is not JSON"),
        (("--bad-words-ids", "[5]"), "--bad-words-ids is [5], expected a list of a list of int or null"),
        (("--n-best", 2), "--n-best is 2 but --num-beams only 1; raise --num-beams"),
        (("--language", "de"), "no token for the language 'de'"),
        (("--source-language", "de"), "--source-language is 'de', and this model is not told the language of the"),
        (("--top-p", 2), "--top-p is 2.0; give a number above 0 and at most 1"),
    ):
        result = run(digits.directory, clip, *arguments)
        assert result.exit_code != 0
        assert message in result.stderr


def test_every_setting_has_a_flag() -> None:
    flags = {option.name for option in main.params}
    settings = set(GenerationSettings.__annotations__) - {"num_return_sequences"}
    assert settings | {"n_best", "decoder_input_ids", "language", "seed"} <= flags


def test_flags_become_settings(digits: Pair, references: dict[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def transcribe_iter(self: OnnxSpeechSeq2Seq, audio: Iterable[str], **keywords: Any) -> Iterator[Transcription]:
        seen.update(keywords)
        return (Transcription("", [], 0.0, "end", [], 1.0, 0.0, 0.0) for _ in audio)

    monkeypatch.setattr(OnnxSpeechSeq2Seq, "transcribe_iter", transcribe_iter)
    flags = {
        "--early-stopping": ("never", "never"),
        "--stop-strings": ("one", ("one",)),
        "--eos-token-id": ("2,3", [2, 3]),
        "--sequence-bias": ("[[[5, 6], -2.0]]", [[[5, 6], -2.0]]),
        "--exponential-decay-length-penalty": ("[3, 1.1]", [3, 1.1]),
        "--max-time": ("2.5", 2.5),
        "--top-k": ("0", 0),
        "--decoder-input-ids": ("0,5", [[0, 5], [0, 5]]),
        "--language": ("de", "de"),
        "--source-language": ("en", "en"),
        "--task": ("translate", "translate"),
        "--n-best": ("3", 3),
        "--batch-size": ("2", 2),
    }
    arguments = [argument for flag, (text, _) in flags.items() for argument in (flag, text)]
    result = run(digits.directory, "a.wav", "b.wav", *arguments, "--no-do-sample", "--renormalize-logits")
    assert result.exit_code == 0, result.stderr
    expected = {flag.strip("-").replace("-", "_"): value for flag, (_, value) in flags.items()}
    expected["num_return_sequences"] = expected.pop("n_best")
    assert seen == {**expected, "do_sample": False, "renormalize_logits": True, "limits": AudioLimits()}
    run(digits.directory, "a.wav", "--early-stopping", "true")
    assert seen["early_stopping"] is True


@pytest.mark.parametrize("layout", ["text", "json", "jsonl", "tsv"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    ("flags", "finished", "said"),
    [
        (("--max-new-tokens", 2), "length", "cut off at its maximal length; allow more tokens with --max-new-tokens"),
        (("--max-length", 3), "length", "cut off at its maximal length"),
        (("--max-new-tokens", 2, "--forced-eos-token-id", 2), "length", "cut off at its maximal length"),
        (("--max-time", 0), "time", "cut off because its time was over"),
        ((), "end", None),
    ],
)
def test_a_cut_is_marked(
    digits: Pair,
    references: dict[Path, str],
    flags: tuple[object, ...],
    finished: str,
    said: str | None,
    beams: int,
    layout: str,
) -> None:
    files = list(references)[:2]
    result = run(digits.directory, *files, "--num-beams", beams, "--format", layout, *flags)
    assert result.exit_code == 0
    warned = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    if said is None:
        assert not warned
    else:
        assert warned[0].startswith(f"Warning: {files[0]}: the text is {said}")
        assert warned[1:] == [f"Warning: {files[1]}: cut off, too"]
    if layout == "json":
        assert [entry["finished"] for entry in json.loads(result.stdout)] == [finished] * 2
    elif layout == "jsonl":
        assert [json.loads(line)["finished"] for line in result.stdout.splitlines()] == [finished] * 2
    elif layout == "tsv":
        assert [row[4] for row in csv.reader(io.StringIO(result.stdout), delimiter="\t")][1:] == [finished] * 2


def test_transcribe_warns_once_of_cuts(digits: Pair, references: dict[Path, str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        digits.exported.transcribe(list(references)[:3], max_new_tokens=2)
        digits.exported.transcribe(list(references)[:3])
    (warning,) = caught
    assert str(warning.message).startswith("audio[0]: the text is cut off at its maximal length; allow more tokens")
    assert warning.filename == __file__


@pytest.mark.parametrize("flag", ["--bad-words-ids", "--sequence-bias", "--exponential-decay-length-penalty"])
def test_json_nested_without_end_is_refused(digits: Pair, references: dict[Path, str], flag: str) -> None:
    result = run(digits.directory, next(iter(references)), flag, "[" * 50_000 + "]" * 50_000)
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert "is nested too deeply" in result.stderr or "are nested too deeply" in result.stderr


@pytest.mark.parametrize("seed", ["-1", "-99", "1.5", "x"])
def test_a_seed_that_is_none_is_refused(seed: str, tmp_path: Path) -> None:
    result = run(tmp_path, "x.wav", "--do-sample", "--seed", seed)
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert "Invalid value for '--seed'" in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--forced-bos-token-id", -1), "--forced-bos-token-id has -1, but the decoder's tokens are 0 … 31"),
        (("--forced-bos-token-id", 32), "--forced-bos-token-id has 32"),
        (("--decoder-start-token-id", -5), "--decoder-start-token-id has -5"),
        (("--eos-token-id", "2,99"), "--eos-token-id has 99"),
        (("--length-penalty", "nan"), "--length-penalty is nan"),
        (("--num-beams", 10**9), "--num-beams is 1000000000; give 1 to 1,024"),
        (("--max-time", "nan"), "--max-time is nan"),
    ],
)
def test_settings_out_of_range_are_refused(
    digits: Pair, references: dict[Path, str], flags: tuple[object, ...], message: str
) -> None:
    result = run(digits.directory, next(iter(references)), *flags)
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert message in result.stderr
    assert result.stdout == ""


def test_n_best(digits: Pair, references: dict[Path, str], tmp_path: Path) -> None:
    (first, text), (second, _) = list(references.items())[:2]
    missing = tmp_path / "missing.wav"
    options = ("--num-beams", 4, "--n-best", 3)
    lines = run(digits.directory, first, missing, second, *options).stdout.split("\n")
    assert len(lines) == 9 + 1
    assert lines[0] == text
    assert lines[3:6] == ["", "", ""]
    (entry,) = json.loads(run(digits.directory, first, *options, "--format", "json").stdout)
    scores = [entry["score"], *(other["score"] for other in entry["alternatives"])]
    assert scores == sorted(scores, reverse=True)
    assert [entry["text"], *(other["text"] for other in entry["alternatives"])] == lines[:3]


def test_tsv_and_json_lines(digits: Pair, references: dict[Path, str], tmp_path: Path) -> None:
    files = [*list(references)[:2], tmp_path / "missing\twith a tab.wav"]
    rows = list(csv.reader(io.StringIO(run(digits.directory, *files, "--format", "tsv").stdout), delimiter="\t"))
    assert rows[0] == ["file", "rank", "score", "text", "finished"]
    assert [(row[0], row[1], row[3]) for row in rows[1:3]] == [(str(file), "1", references[file]) for file in files[:2]]
    assert float(rows[1][2]) < 0
    assert {row[4] for row in rows[1:3]} == {"end"}
    assert rows[3] == [str(files[2]), "", "", "", ""]
    lines = run(digits.directory, *files, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line).get("text") for line in lines] == [references[file] for file in files[:2]] + [None]
    assert "no such file" in json.loads(lines[2])["error"]


@pytest.mark.parametrize(
    ("layout", "suffix"), [("text", ".txt"), ("json", ".json"), ("jsonl", ".jsonl"), ("tsv", ".tsv")]
)
def test_a_file_for_each(digits: Pair, references: dict[Path, str], tmp_path: Path, layout: str, suffix: str) -> None:
    first, second = list(references)[:2]
    out = tmp_path / "new" / "texts"
    result = run(digits.directory, first, tmp_path / "missing.wav", second, "--output-dir", out, "--format", layout)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert sorted(path.name for path in out.iterdir()) == [f"{file.stem}{suffix}" for file in (first, second)]
    written = (out / f"{first.stem}{suffix}").read_text()
    if "json" in layout:
        assert json.loads(written)["text"] == references[first]
    else:
        assert written.splitlines()[-1].endswith(references[first] + ("\tend" if layout == "tsv" else ""))


def test_where_nothing_can_be_written(digits: Pair, references: dict[Path, str], tmp_path: Path) -> None:
    clip = next(iter(references))
    twins = [tmp_path / "a" / clip.name, tmp_path / "b" / clip.name]
    result = run(digits.directory, *twins, "--output-dir", tmp_path)
    assert result.exit_code == 2
    assert f"{twins[0]} and {twins[1]} would both be written to" in " ".join(result.stderr.split())
    (tmp_path / "file").write_text("")
    result = run(digits.directory, clip, "--output-dir", tmp_path / "file")
    assert result.exit_code == 1
    assert "Could not open file" in result.stderr
    (tmp_path / "out" / f"{clip.stem}.txt" / "in the way").mkdir(parents=True)
    result = run(digits.directory, clip, "--output-dir", tmp_path / "out")
    assert result.exit_code == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{clip.stem}.txt"]


def test_a_directory_is_all_audio_in_and_below_it(digits: Pair, references: dict[Path, str], tmp_path: Path) -> None:
    clips = sorted(references)[:3]
    (tmp_path / "b").mkdir()
    for clip, place in zip(clips, ("b/1" + clips[0].suffix, "c.OTHER", "a" + clips[2].suffix.upper()), strict=True):
        shutil.copy(clip, tmp_path / place)
    done = run(digits.directory, tmp_path, clips[1])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [references[clips[index]] for index in (2, 0, 1)]


def test_a_directory_without_audio_is_refused(digits: Pair, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no audio")
    done = run(digits.directory, tmp_path)
    assert done.exit_code == 2
    assert f"{tmp_path} is a directory without audio" in done.stderr


def test_swapped_arguments_are_put_right(digits: Pair, references: dict[Path, str]) -> None:
    clip = next(iter(references))
    done = run(clip, digits.directory)
    assert done.exit_code == 2
    assert f"the bundle comes first: speech-transcribe {digits.directory} {clip}" in done.stderr


def test_audio_from_stdin(digits: Pair, references: dict[Path, str], tmp_path: Path) -> None:
    clip, text = next(iter(references.items()))
    piped = CliRunner().invoke(main, [str(digits.directory), "-", str(clip)], input=clip.read_bytes())
    assert piped.stdout.splitlines() == [text, text]
    wrong = CliRunner().invoke(main, [str(digits.directory), "-"], input=b"not audio")
    assert wrong.exit_code == 3
    assert "stdin: cannot be read as audio" in wrong.stderr
    twice = run(digits.directory, "-", "-")
    assert twice.exit_code == 2
    assert "stdin (-) can be read only once" in twice.stderr
    CliRunner().invoke(main, [str(digits.directory), "-", "--output-dir", str(tmp_path)], input=clip.read_bytes())
    assert (tmp_path / "stdin.txt").read_text() == f"{text}\n"


def test_verbose_says_what_takes_how_long(digits: Pair, references: dict[Path, str]) -> None:
    files = list(references)[:3]
    quiet, verbose = (run(digits.directory, *files, "--batch-size", 2, *flag) for flag in ((), ("--verbose",)))
    assert verbose.stdout == quiet.stdout
    assert quiet.stderr == ""
    said = verbose.stderr
    assert re.search(r"^\[\d+\.\d{3} s\] .*: files found and checked in \d+\.\d{3} s, loaded in ", said, re.MULTILINE)
    assert len(re.findall(r"s of audio read in \d", said)) == 3
    stages = r"(\d) clips, [\d.]+ s of audio: encoded in [\d.]+ s, decoded in [\d.]+ s and \d+ steps"
    assert re.findall(stages, said) == ["2", "1"]
    assert run(digits.directory, *files).stderr == ""  # nothing of it is left


def test_an_interrupt_leaves_whole_json(
    digits: Pair, references: dict[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    transcribe_iter = OnnxSpeechSeq2Seq.transcribe_iter

    def interrupted(self: OnnxSpeechSeq2Seq, audio: Any, **keywords: Any) -> Iterator[Any]:
        yield next(transcribe_iter(self, audio, **keywords))
        raise KeyboardInterrupt

    monkeypatch.setattr(OnnxSpeechSeq2Seq, "transcribe_iter", interrupted)
    result = run(digits.directory, *references, "--format", "json")
    assert result.exit_code == 130
    assert [entry["text"] for entry in json.loads(result.stdout)] == [next(iter(references.values()))]
    assert "Interrupted" in result.stderr


def test_bundles_of_the_hub(digits: Pair, references: dict[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def bundle_directory(name: str, **where: Any) -> Path:
        asked.update(name=name, **where)
        return digits.directory

    monkeypatch.setattr(speech_runtime.model, "bundle_directory", bundle_directory)
    monkeypatch.setattr(speech_runtime.__main__, "bundle_directory", bundle_directory)
    where = ("--revision", "v1", "--token", "t", "--cache-dir", "c", "--offline")
    for command, arguments in ((main, [str(next(iter(references)))]), (speech_runtime.__main__.main, [])):
        asked.clear()
        result = CliRunner().invoke(command, ["someone/digits", *arguments, *where])
        assert result.exit_code == 0, result.stderr
        expected = {"revision": "v1", "token": "t", "cache_dir": "c", "local_files_only": True}
        assert not asked.pop("engines", False)  # they are large, and nothing of them runs on the CPU
        assert asked == {"name": "someone/digits", **expected}
