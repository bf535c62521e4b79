"""The `speech-transcribe` command."""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

import click
import numpy as np

from ..audio import AUDIO_SUFFIXES, AudioFile
from ..backends.options import DEVICES, SessionOptions, options_for, with_cuda_graphs
from ..bundle.manifest import MANIFEST
from ..bundle.safe_files import is_directory, is_there
from ..errors import AudioError, SpeechError
from ..model import BATCH_SIZE, OnnxSpeechSeq2Seq
from ..transcribe.batching import MOST_CLIPS
from .console import complain, log_on_stderr
from .entry import exit_when_interrupted
from .flags import (
    IntegerRange,
    audio_limit_flags,
    cuda_graphs_flag,
    given_settings,
    hub_flags,
    setting_flags,
    take_audio_limits,
    with_flags,
)
from .formats import FORMATS
from .writers import Writer, to_directory, to_stdout

SOME_FAILED = 3

_EXIT_CODES = f"""\b
Exit codes:
  0    all files were transcribed
  1    the bundle, a setting or the output is wrong
  2    the command line is wrong
  {SOME_FAILED}    some files could not be transcribed; the others were
  130  interrupted by Ctrl-C; the output is well-formed
  143  ended by SIGTERM; the output is well-formed
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_CODES)
@click.argument("bundle", type=click.Path())
@click.argument("files", type=click.Path(allow_dash=True), nargs=-1, required=True)
@click.option(
    "--language",
    help="Language of the text, by code or by token of the tokenizer, such as de or de_DE. Whisper detects it without "
    "this flag.",
)
@click.option(
    "--source-language",
    help="Language of the speech, for a model that is told it, such as Canary. [default: the language of the text]",
)
@click.option("--task", help="Task of a model that has several: transcribe or translate (into English) for Whisper.")
@click.option(
    "--n-best",
    type=IntegerRange(1),
    default=1,
    help="Number of hypotheses for each file; at most --num-beams, or any number of samples.",
)
@setting_flags
@click.option("--seed", type=IntegerRange(0), help="Seed of --do-sample: the same seed draws the same text.")
@click.option(
    "--format", "layout", type=click.Choice(list(FORMATS)), default="text", show_default=True, help="Output format."
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    help="Directory to write one file per audio file to, instead of stdout.",
)
@click.option(
    "--batch-size",
    type=IntegerRange(1, MOST_CLIPS),
    default=BATCH_SIZE,
    show_default=True,
    help="Number of files decoded together.",
)
@click.option(
    "--device", default="cpu", show_default=True, help=f"{', '.join(DEVICES)}; the second GPU is cuda:1, for example."
)
@click.option("--threads", type=IntegerRange(0), default=0, help="Threads of one operator; 0 is all cores.")
@audio_limit_flags
@cuda_graphs_flag
@hub_flags
@click.option("--verbose", is_flag=True, help="Report each stage and its time on stderr.")
@click.version_option(package_name="speech-export")
@exit_when_interrupted()
def main(
    bundle: str,
    files: tuple[str, ...],
    language: str | None,
    source_language: str | None,
    task: str | None,
    n_best: int,
    seed: int | None,
    layout: str,
    output_dir: Path | None,
    batch_size: int,
    device: str,
    threads: int,
    cuda_graphs: int | None,
    verbose: bool,
    revision: str | None,
    token: str | None,
    cache_dir: str | None,
    local_files_only: bool,
    **settings: Any,
) -> None:
    """Transcribe audio FILES with the exported model in BUNDLE, a directory or a Hub id.

    A directory among FILES stands for all audio in it and below, in the order of the names; `-` is audio from stdin.

    Text goes to stdout in the order of FILES: one line per file, or one per hypothesis with --n-best. A file that
    cannot be transcribed is named on stderr and gets an empty line. A text that is cut off by its length or by
    --max-time is named on stderr, too. The formats other than text have the score of each hypothesis and why it ended
    (finished: end, length, time or stopped). JSON also has the tokens, the seconds of audio, encoding and decoding,
    and the peak memory of the process so far.

    Settings that are not given come from the bundle's generation_config.json.
    """
    if files.count("-") > 1:
        raise click.UsageError("stdin (-) can be read only once")
    _check_order(bundle, files)
    files = tuple(found for file in files for found in _audio_files(file))
    try:
        limits = take_audio_limits(settings)
    except AudioError as error:
        raise click.UsageError(str(error)) from error
    keywords = {
        **given_settings(settings),
        "num_return_sequences": n_best,
        "language": language,
        "source_language": source_language,
        "task": task,
    }
    if seed is not None:
        keywords["generator"] = np.random.default_rng(seed)
    if "decoder_input_ids" in keywords:
        keywords["decoder_input_ids"] = [keywords["decoder_input_ids"]] * len(files)
    hub: dict[str, Any] = {
        "revision": revision,
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
    }
    style = FORMATS[layout]
    writer: AbstractContextManager[Writer]
    writer = to_directory(output_dir, style, n_best, files) if output_dir else to_stdout(style, n_best)
    try:
        with log_on_stderr("speech_runtime", verbose=verbose), writer as write:
            options = with_cuda_graphs(options_for(device), cuda_graphs)
            if isinstance(options, SessionOptions):
                options = replace(options, intra_op_threads=threads)
            elif threads:
                raise click.UsageError(f"--threads is for ONNX Runtime, and --device {device} runs without it")
            model = OnnxSpeechSeq2Seq.from_pretrained(bundle, options=options, **hub)
            results = model.transcribe_iter(map(_opened, files), batch_size=batch_size, limits=limits, **keywords)
            # Text on the terminal shows the progress; a bar would overwrite it.
            lines = verbose or (output_dir is None and sys.stdout.isatty())
            failed = _write(files, results, write, bar=sys.stderr is not None and sys.stderr.isatty() and not lines)
    except SpeechError as error:
        raise click.ClickException(with_flags(str(error))) from error
    if failed:
        complain(f"{failed} of {len(files)} files could not be transcribed")
        sys.exit(SOME_FAILED)


def _check_order(bundle: str, files: tuple[str, ...]) -> None:
    """Refuse arguments that are swapped."""
    swapped = next((file for file in files if is_there(Path(file) / MANIFEST)), None)
    if swapped is not None:
        raise click.UsageError(
            f"{swapped} is a bundle, not audio; the bundle comes first: speech-transcribe {swapped} {bundle}"
        )


def _audio_files(file: str) -> list[str]:
    """Return the audio files in and below a directory; anything else as it is."""
    if not is_directory(file):
        return [file]
    found = [
        os.path.join(directory, name)  # noqa: PTH118 - a name need not be UTF-8
        for directory, _, names in os.walk(file, onerror=_name_unreadable)
        for name in names
        if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES  # noqa: PTH122
    ]
    if not found:
        raise click.UsageError(f"{file} is a directory without audio: no name in it ends in .wav, .flac, .mp3 or alike")
    return sorted(found)


def _name_unreadable(error: OSError) -> None:
    raise click.UsageError(f"{error.filename} cannot be read: {error.strerror}; check its permissions") from error


class _Stdin:
    """Audio on stdin. It is read when its turn comes."""

    name = "stdin"

    @property
    def raw(self) -> Any:
        """Unbuffered stream under the buffered one."""
        return getattr(self._buffer(), "raw", None)

    def fileno(self) -> int:
        """Return the file descriptor, to wait on."""
        return self._buffer().fileno()

    def read(self, count: int) -> bytes:
        """Read `count` bytes, fewer at the end."""
        return self._buffer().read(count)

    def read1(self, count: int) -> bytes:
        """Read the bytes that are available, at most `count`."""
        return cast("BufferedReader", self._buffer()).read1(count)

    def _buffer(self) -> BinaryIO:
        if sys.stdin is None:
            raise OSError("it is closed")
        return sys.stdin.buffer


def _opened(file: str) -> AudioFile:
    return cast("BinaryIO", _Stdin()) if file == "-" else file


def _write(files: tuple[str, ...], results: Iterator[Any], write: Writer, bar: bool) -> int:
    """Write each result as soon as it is known; return the number of files that could not be transcribed."""
    failed = 0
    told: set[str] = set()
    hidden = not bar or len(files) == 1
    with click.progressbar(length=len(files), label="Transcribing", file=sys.stderr, hidden=hidden) as progress:
        for file, result in zip(files, results, strict=True):
            write(file, result)  # first: the result must not wait for a reader of stderr
            if isinstance(result, AudioError):
                complain(f"Error: {result}")
                failed += 1
            elif result.cut:
                complain(f"Warning: {file}: {'cut off, too' if result.cut in told else with_flags(result.cut)}")
                told.add(result.cut)
            progress.update(1)
    return failed
