"""Test the output of results: full disks, closed pipes, and file names that are not Unicode."""

import csv
import errno
import io
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import pytest

from speech_runtime import AudioError, Transcription
from speech_runtime.cli import transcribe as cli
from speech_runtime.cli.entry import oserrors_named
from speech_runtime.cli.formats import FORMATS
from speech_runtime.cli.writers import to_directory

WRITE = """
import click
from speech_runtime import Transcription
from speech_runtime.cli.formats import FORMATS
from speech_runtime.cli.writers import to_stdout

@click.command()
@click.argument("layout")
@click.argument("files", nargs=-1)
def main(layout, files):
    with to_stdout(FORMATS[layout], 1) as write:
        for file in files:
            write(file, Transcription("zwölf €", [0, 2], -0.5, "end", [], 1.0, 0.0, 0.0))

main()
"""
ODD = "a\udcff\udcfe.wav"


def write(
    layout: str, *files: str, stdout: int | None = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", WRITE, layout, *files]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize("layout", list(FORMATS))
def test_a_full_disk_is_named(layout: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = write(layout, "a.wav", "b.wav", stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr.decode() == "Error: stdout cannot be written: No space left on device; the rest is lost\n"


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = write("json", "a.wav", "b.wav", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_closed_stdout_is_named() -> None:
    command = f'exec >&-; exec {sys.executable} -c "$0" text a.wav'
    done = subprocess.run(["sh", "-c", command, WRITE], stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"Error: stdout is closed; leave it open, or write to files with --output-dir\n"


def test_names_that_are_no_unicode_are_escaped() -> None:
    (entry,) = json.loads(write("json", ODD).stdout)
    assert os.fsencode(entry["file"]) == b"a\xff\xfe.wav"
    assert entry["text"] == "zwölf €"
    assert write("tsv", ODD).stdout.decode().splitlines()[1] == "a\\udcff\\udcfe.wav\t1\t-0.500000\tzwölf €\tend"


def test_what_an_encoding_lacks_is_escaped() -> None:
    assert write("text", "a.wav", PYTHONIOENCODING="latin-1").stdout == "zwölf \\u20ac\n".encode("latin-1")


@pytest.mark.parametrize("layout", list(FORMATS))
def test_a_file_of_its_own_for_a_name_that_is_no_unicode(tmp_path: Path, layout: str) -> None:
    heard = Transcription("one", [0, 2], -0.5, "end", [], 1.0, 0.0, 0.0)
    with to_directory(tmp_path, FORMATS[layout], 1, [ODD, "b.wav"]) as write_one:
        write_one(ODD, heard)
        write_one("b.wav", AudioError("b.wav: is empty"))
    (written,) = tmp_path.iterdir()
    assert os.fsencode(written.name).startswith(b"a\xff\xfe.")
    assert "one" in written.read_text()


def test_the_longest_name_that_a_file_may_have(tmp_path: Path) -> None:
    heard = Transcription("one", [0, 2], -0.5, "end", [], 1.0, 0.0, 0.0)
    for stem in ("x" * 251, "€" * 83 + "xx"):
        with to_directory(tmp_path, FORMATS["text"], 1, [f"{stem}.wav"]) as write_one:
            write_one(f"{stem}.wav", heard)
        assert (tmp_path / f"{stem}.txt").read_text() == "one\n"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    heard = Transcription("one", [0, 2], -0.5, "end", [], 1.0, 0.0, 0.0)
    (tmp_path / "b.txt").write_text("before")
    with to_directory(tmp_path, FORMATS["text"], 1, ["a.wav", "b.wav"]) as write_one:
        for file in ("a.wav", "b.wav"):
            with pytest.raises(click.FileError, match="No space left"):
                write_one(file, heard)
    (left,) = tmp_path.iterdir()
    assert (left.name, left.read_text()) == ("b.txt", "before")


@pytest.mark.parametrize("file", ["a.txt", "./b/../a.txt", "link.wav", "other/a.mp3"])
def test_audio_is_never_replaced(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("audio")
    (tmp_path / "link.wav").symlink_to("a.txt")
    files = [file, "a.txt"] if "other" in file else [file]
    directory = tmp_path
    if file == "link.wav":  # what it is written to is the link itself
        directory = tmp_path / "linked"
        directory.mkdir()
        (directory / "link.txt").symlink_to(tmp_path / "a.txt")
    with pytest.raises(click.UsageError, match=r"is an audio file and|would both be written"):
        to_directory(directory, FORMATS["text"], 1, files).__enter__()
    assert (tmp_path / "a.txt").read_text() == "audio"


def test_nothing_is_written_into_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("{}")
    with pytest.raises(click.UsageError, match="is a bundle whose files could be replaced"):
        to_directory(tmp_path, FORMATS["json"], 1, ["bundle.wav"]).__enter__()
    assert (tmp_path / "bundle.json").read_text() == "{}"


def test_a_name_too_long_for_its_format_is_said_before_the_work(tmp_path: Path) -> None:
    long = "x" * 251 + ".wav"  # with .jsonl 257 characters, of 255 that a file may have
    with pytest.raises(click.FileError, match="File name too long; .*rename the audio"):
        to_directory(tmp_path, FORMATS["jsonl"], 1, [long, "b.wav"]).__enter__()
    assert not list(tmp_path.iterdir())


def test_links_that_lead_to_themselves_are_no_traceback(tmp_path: Path) -> None:
    loop = tmp_path / "loop.wav"
    loop.symlink_to(loop)
    with to_directory(tmp_path / "out", FORMATS["text"], 1, [str(loop)]) as write_one:
        write_one(str(loop), AudioError("cannot be read"))
    with pytest.raises(click.FileError, match="choose another --output-dir"):
        to_directory(loop, FORMATS["text"], 1, ["a.wav"]).__enter__()


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG])
def test_a_directory_that_may_not_be_looked_into_is_named(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(click.FileError, match=f"{os.strerror(number)}; choose another"):
        to_directory(tmp_path / "out", FORMATS["text"], 1, ["a.wav"]).__enter__()


@pytest.mark.parametrize("name", ["a\rb.wav", "a\nb.wav", "a\tb.wav", 'a"b.wav'])
def test_tsv_quotes_what_would_break_its_rows(name: str) -> None:
    heard = Transcription("one", [0, 2], -0.5, "end", [], 1.0, 0.0, 0.0)
    row = FORMATS["tsv"].entry(name, heard, 1)
    assert row.startswith('"a')
    assert next(csv.reader(io.StringIO(row, newline=""), delimiter="\t")) == [name, "1", "-0.500000", "one", "end"]
    assert row.endswith("end\n")


COMMANDS = {
    "speech-transcribe": "from speech_runtime.cli.commands import transcribe as main",
    "speech-bench": "from speech_runtime.cli.commands import bench as main",
    "speech-export": "from speech_runtime.cli.commands import export as main",
}


@pytest.mark.parametrize("flag", ["--version", "--help"])
@pytest.mark.parametrize("command", [*COMMANDS, "python -m speech_runtime"])
def test_no_command_has_a_traceback_for_a_full_disk(command: str, flag: str) -> None:
    code = ["-c", f"{COMMANDS[command]}\nmain()"] if command in COMMANDS else ["-m", "speech_runtime"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, *code, flag], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.decode() == "Error: stdout cannot be written: No space left on device; the rest is lost\n"


def test_a_path_that_the_system_refuses_is_named_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, oserrors_named():
        raise PermissionError(errno.EACCES, "Permission denied", "/root/zz")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "Error: /root/zz: Permission denied; check its name and permissions\n"
    with pytest.raises(OSError, match="nobody's"), oserrors_named():
        raise OSError("nobody's")


def test_results_come_before_complaints_and_without_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cut = Transcription("one", [0, 2], -0.5, "length", [], 1.0, 0.0, 0.0)
    results = [cut, AudioError("b.wav: is empty"), cut]
    written = []
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        failed = cli._write(("a", "b", "c"), iter(results), lambda file, _: written.append(file), bar=False)
        with suppress(OSError):
            full.close()
    assert (written, failed) == (["a", "b", "c"], 1)
