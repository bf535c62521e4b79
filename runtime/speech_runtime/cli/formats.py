"""Output formats of `speech-transcribe`: text, JSON, JSON lines and tab-separated values."""

import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import AudioError
from ..system import peak_rss_bytes
from ..transcribe.results import Hypothesis, Transcription

Result = Transcription | AudioError


@dataclass(frozen=True)
class Format:
    """A way to write results.

    Attributes:
        suffix: Suffix of files in this format.
        entry: Function that formats the result of an audio file, with this number of hypotheses.
        header: Text before the entries, and before the single entry of a file.
        start: Text before the entries on stdout.
        between: Text between two entries on stdout.
        end: Text after the entries on stdout.
    """

    suffix: str
    entry: Callable[[str, Result, int], str]
    header: str = ""
    start: str = ""
    between: str = ""
    end: str = ""


def _text(_: str, result: Result, count: int) -> str:
    """Format one line for each hypothesis; empty lines if the audio could not be transcribed."""
    texts = [" ".join(hypothesis.text.splitlines()) for hypothesis in _hypotheses(result)]
    return "".join(f"{text}\n" for text in texts or [""] * count)


def _tsv(file: str, result: Result, _: int) -> str:
    """Format one row for each hypothesis; a row with the file alone if it could not be transcribed."""
    rows = [
        (file, i, f"{found.score:.6f}", found.text, found.finished)
        for i, found in enumerate(_hypotheses(result), start=1)
    ]
    return _rows(rows or [(file, "", "", "", "")])


def _rows(rows: Iterable[Iterable[object]]) -> str:
    return "".join(map(_row, rows))


def _row(fields: Iterable[object]) -> str:
    r"""Format one row; Python quotes a field with \r only if \r is in the line terminator."""
    written = io.StringIO()
    csv.writer(written, delimiter="\t", lineterminator="\r\n").writerow(fields)
    return written.getvalue().removesuffix("\r\n") + "\n"


def _object(file: str, result: Result) -> dict[str, Any]:
    found = {"error": str(result)} if isinstance(result, AudioError) else asdict(result)
    return {"file": file, **found, "peak_rss_bytes": peak_rss_bytes()}


def _json(file: str, result: Result, _: int) -> str:
    return json.dumps(_object(file, result), indent=2, ensure_ascii=False)


def _json_line(file: str, result: Result, _: int) -> str:
    return json.dumps(_object(file, result), ensure_ascii=False) + "\n"


def _hypotheses(result: Result) -> list[Hypothesis]:
    return [] if isinstance(result, AudioError) else [result, *result.alternatives]


FORMATS = {
    "text": Format(".txt", _text),
    "json": Format(".json", _json, start="[\n", between=",\n", end="\n]\n"),
    "jsonl": Format(".jsonl", _json_line),
    "tsv": Format(".tsv", _tsv, header=_rows([("file", "rank", "score", "text", "finished")])),
}
