"""Write the table of docs/half_precision.md: what was measured of every family. `make half` runs it.

Without arguments all families are measured; with names only those, and the other rows stay as they are.
"""

import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.progress import track
from transformers.utils import logging as transformers_logging

import half_matrix
from composites import composite
from matrix import DECODER_ROWS, ENCODER_ROWS, Pairing
from speech_export import ExportError, export
from speech_export.precision import PrecisionOptions

PAGE = Path(__file__).resolve().parents[1] / "docs" / "half_precision.md"
MARK = "<!-- the table begins here; `make half` writes it -->"
COLUMNS = ("", "next token", "searches", "mean", "p99", "largest", "reference", "engines")


def row(pairing: Pairing) -> str:
    """The line of a family, or why there is none."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    transformers_logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            model = composite(pairing.decoder, pairing.encoder)
            export(model, Path(scratch, "float32"), precision=PrecisionOptions(target="cuda"))
            halved = half_matrix.make(Path(scratch, "float32"), Path(scratch))
            size = half_matrix.engines(halved)
        except ExportError as error:
            return f"| {pairing.name} | refused: {error} |" + " |" * (len(COLUMNS) - 2)
        found = half_matrix.drift(halved, [half_matrix.noise(halved.float32)])
        cells = [f"{found.next_tokens:.1%}", f"{found.searches:.1%}"]
        cells += [f"{number:.1e}" for number in (found.mean, found.p99, found.largest)]
        cells += [f"{half_matrix.from_definition(halved):.1e}", f"{size / 2**20:.1f} MiB"]
        return f"| {' | '.join([pairing.name, *cells])} |"


def write(lines: Iterable[str]) -> None:
    """Put `lines` into the table, over the old ones of the same families."""
    text, _, table = PAGE.read_text(encoding="utf-8").partition(MARK)
    rows = {line.split("|")[1].strip(): line for line in re.findall(r"^\|.*\|$", table, re.MULTILINE)[2:]}
    rows |= {line.split("|")[1].strip(): line for line in lines}
    packages = ("onnxruntime", "onnx")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    head = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    ordered = [rows[each.name] for each in (*ENCODER_ROWS, *DECODER_ROWS) if each.name in rows]
    made_with = f"Measured with {versions}, TensorRT-RTX {version('tensorrt-rtx-cu12')}."
    PAGE.write_text("\n".join([text + MARK, "", made_with, "", *head, *ordered, ""]), encoding="utf-8")


def main() -> None:
    """Measure families, two at a time."""
    names = sys.argv[1:]
    pairings = [each for each in (*ENCODER_ROWS, *DECODER_ROWS) if not names or each.name in names]
    with get_context("spawn").Pool(2, maxtasksperchild=8) as pool:
        write(list(track(pool.imap(row, pairings), description="measuring", total=len(pairings))))


if __name__ == "__main__":
    main()
