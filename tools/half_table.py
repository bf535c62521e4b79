"""The table of docs/half_precision.md: every family in half precision, as measured."""

import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import half_matrix
import markdown_table
from composites import composite
from markdown_table import Cells
from matrix import DECODER_ROWS, ENCODER_ROWS, Pairing, bundle_engine_bytes
from speech_export import ExportError, export
from speech_export.precision.options import PrecisionOptions

PAGE = Path(__file__).resolve().parents[1] / "docs" / "half_precision.md"
MARK = "<!-- the table begins here; `make half` writes it -->"
FP32_ENGINES, FP16_ENGINES = "fp32 engines", "fp16 engines"
_DRIFT = ("next token", "searches", "mean", "p99", "largest", "reference", "kept")
COLUMNS = (*_DRIFT, FP32_ENGINES, FP16_ENGINES)


def measured(pairing: Pairing) -> Cells:
    """Return the cells of a family."""
    cells: dict[str, str] = {}
    model = composite(pairing.decoder, pairing.encoder)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as other:
        float32, for_tensorrt = Path(scratch, "float32"), Path(other, "float32")
        column = FP32_ENGINES
        try:
            export(model, for_tensorrt, precision=PrecisionOptions(target="tensorrt"))
            cells[column] = _size(bundle_engine_bytes(for_tensorrt))
            column = FP16_ENGINES
            standard = half_matrix.make(for_tensorrt, Path(other), half_matrix.FP16_FOR_TENSORRT)
            cells[column] = _size(bundle_engine_bytes(standard.half))
            column = _DRIFT[0]
            export(model, float32, precision=PrecisionOptions(target="cuda"))
            halved = half_matrix.make(float32, Path(scratch))
        except ExportError as error:
            return cells | {column: f"refused: {error}"}
        found = half_matrix.drift(halved, [half_matrix.noise(float32)])
        numbers = (found.mean, found.p99, found.largest, half_matrix.from_definition(halved))
        drift = [f"{found.next_tokens:.1%}", f"{found.searches:.1%}", *(f"{number:.1e}" for number in numbers)]
        drift.append(str(len(halved.kept)))
        return cells | dict(zip(_DRIFT, drift, strict=True))


def read() -> dict[str, Cells]:
    """Return the rows of the page."""
    return markdown_table.read(PAGE.read_text(encoding="utf-8").partition(MARK)[2])


def write(found: Mapping[str, Cells]) -> None:
    """Write rows into the table; they replace those of the same families."""
    rows = {**read(), **found}
    text, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    versions = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "onnx"))
    made_with = f"Measured with {versions}, TensorRT-RTX {version('tensorrt-rtx-cu13')}."
    ordered = [(row.name, rows[row.name]) for row in (*ENCODER_ROWS, *DECODER_ROWS) if row.name in rows]
    page = "\n".join([text + MARK, "", made_with, "", markdown_table.write(COLUMNS, ordered)])
    PAGE.write_text(page, encoding="utf-8")


def _size(found: int) -> str:
    return f"{found / 2**20:.1f} MiB"
