"""The `speech-transcribe` command."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click
import numpy as np

from .audio import Samples
from .console import warnings_on_stderr
from .engines.session_options import SessionOptions
from .errors import AudioError, SpeechError
from .memory import peak_rss_bytes
from .model import OnnxSpeechSeq2Seq, Transcription

Result = Transcription | AudioError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path())
@click.argument("files", type=click.Path(), nargs=-1, required=True)
@click.option("--num-beams", type=click.IntRange(1), help="Hypotheses kept alive; 1 is greedy search.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Tokens at most for one file.")
@click.option("--min-new-tokens", type=click.IntRange(0), help="Tokens at least for one file.")
@click.option("--length-penalty", type=float, help="Above 0 favours long text, below 0 short text (beam search).")
@click.option("--no-repeat-ngram-size", type=click.IntRange(0), help="So many tokens in a row come once only.")
@click.option("--repetition-penalty", type=float, help="Above 1 makes tokens rarer that came before.")
@click.option("--do-sample", is_flag=True, default=None, help="Draw tokens by their probabilities.")
@click.option("--temperature", type=float, help="Below 1 favours likely tokens (sampling).")
@click.option("--top-k", type=click.IntRange(0), help="Draw from so many of the likeliest tokens; 0: from all.")
@click.option("--top-p", type=float, help="Draw from the likeliest tokens with this probability together.")
@click.option("--seed", type=int, help="For the same samples again.")
@click.option("--max-time", type=float, help="Seconds after which a batch is ended with what it has.")
@click.option("--language", help="To write in, as the tokenizer names it: de, de_DE.")
@click.option("--setting", "others", multiple=True, help="Any other setting of generate(), as NAME=JSON; repeatable.")
@click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True, help="Files decoded together.")
@click.option("--threads", type=click.IntRange(0), default=0, help="Threads of one operator; 0: all cores.")
@click.option("--format", "layout", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.version_option(package_name="speech-export")
@warnings_on_stderr("speech_runtime")
def main(
    bundle: str,
    files: tuple[str, ...],
    batch_size: int,
    threads: int,
    layout: str,
    seed: int | None,
    others: tuple[str, ...],
    **settings: Any,
) -> None:
    """Transcribe audio FILES with the exported model in BUNDLE.

    Text goes to stdout, one line a file, in the order given; a file that cannot be transcribed is named on stderr,
    gets an empty line, and makes the exit code 1. With `--format json`: one array, one object a file, with text,
    tokens, score, the seconds of audio, encoding and decoding, and the most memory that the process took so far.
    """
    given = {name: value for name, value in settings.items() if value is not None} | dict(map(_setting, others))
    if seed is not None:
        given["generator"] = np.random.default_rng(seed)
    try:
        model = OnnxSpeechSeq2Seq.from_pretrained(bundle, options=SessionOptions(intra_op_threads=threads))
        # On a terminal the lines of text are the progress; a bar would run into them.
        bar = sys.stderr.isatty() and not (layout == "text" and sys.stdout.isatty())
        results = _transcribe(model, files, batch_size, bar, **given)
        failed = _print_json(files, results) if layout == "json" else _print_text(results)
    except SpeechError as error:
        raise click.ClickException(str(error)) from error
    if failed:
        click.echo(f"{failed} of {len(files)} files could not be transcribed", err=True)
        sys.exit(1)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    try:
        return name.replace("-", "_"), json.loads(value)
    except ValueError:
        hint = f"{value!r} is no JSON; quote strings" if equals else "it has no '='"
        raise click.UsageError(f"--setting {text}: give NAME=JSON, {hint}") from None


def _transcribe(
    model: OnnxSpeechSeq2Seq, files: Sequence[str], batch_size: int, bar: bool, **settings: Any
) -> Iterator[Result]:
    """Results in the order of `files`; audio that cannot be transcribed is named on stderr and yields its error."""
    batches = [files[i : i + batch_size] for i in range(0, len(files), batch_size)]
    hidden = not bar or len(batches) == 1
    with click.progressbar(batches, label="Transcribing", file=sys.stderr, hidden=hidden) as progress:
        for batch in progress:
            loaded: list[Samples | AudioError] = []
            for file in batch:
                try:
                    loaded.append(model.load(file))
                except AudioError as error:
                    click.echo(f"Error: {error}", err=True)
                    loaded.append(error)
            clips = [clip for clip in loaded if not isinstance(clip, AudioError)]
            transcriptions = model.transcriptions(clips, **settings)
            yield from (clip if isinstance(clip, AudioError) else next(transcriptions) for clip in loaded)


def _print_text(results: Iterator[Result]) -> int:
    failed = 0
    for result in results:
        failed += isinstance(result, AudioError)
        click.echo("" if isinstance(result, AudioError) else result.text)
    return failed


def _print_json(files: Sequence[str], results: Iterator[Result]) -> int:
    objects = [
        {
            "file": file,
            **({"error": str(result)} if isinstance(result, AudioError) else asdict(result)),
            "peak_rss_bytes": peak_rss_bytes(),
        }
        for file, result in zip(files, results, strict=True)
    ]
    click.echo(json.dumps(objects, indent=2, ensure_ascii=False))
    return sum("error" in entry for entry in objects)
