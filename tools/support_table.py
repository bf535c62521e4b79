"""The page docs/support.md: every pairing of the matrix as measured, and what is refused."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import markdown_table
from half_table import FP16_ENGINES, FP32_ENGINES
from markdown_table import Cells
from matrix import (
    DECODER,
    DECODER_ROWS,
    ENCODER,
    ENCODER_ROWS,
    Pairing,
    measure,
)
from speech_export import ExportError
from speech_export.families.supported import supported_families

TABLE = Path(__file__).resolve().parents[1] / "docs" / "support.md"
INTRODUCTION = """# What can be exported

Made by `make matrix` with {versions}: tiny models with random weights, exported, run
on ONNX Runtime's CPU provider and compared with transformers on a padded batch of three clips whose lengths are
multiples of nothing. The TensorRT engines are parsed and built on a CPU; they have not run on a GPU.

- **log-prob**: largest difference of a log-probability from transformers, float32.
- **greedy**, **beams**: share of tokens equal to transformers'; beams are 4, and the 2 best are compared.
- **fp32 engines**, **fp16 engines**: size of the three TensorRT-RTX engines, of graphs for a GPU in float32 and in half
  precision, strongly typed, with two profiles for the decoder. Models this small are kernels more than weights. How
  close half precision stays is in [its own table](half_precision.md#every-family).
- **batch = single**: whether the encoder makes the same of a clip alone as in a padded batch (to 1e-4). Where it does
  not, transformers does not either, by as much: its convolutions or norms see the padding. `transcribe` encodes such
  clips one by one, so that a clip's answer never depends on its batch; `generate` takes a batch as it is given.
"""
OTHER_AUDIO = """
Other models of transformers that take audio are no encoders of a `SpeechEncoderDecoderModel`: they cannot downsample an
attention mask, so that it cannot run a padded batch. They are refused: {types}.
"""

_ENGINES = (FP32_ENGINES, FP16_ENGINES)
_PADDING = "batch = single"
COLUMNS = ("export", "log-prob", "greedy", "beams", *_ENGINES)


def measured(pairing: Pairing) -> Cells:
    """Return the cells of a pairing, without those of its engines; for a refused one, the reason."""
    try:
        found = measure(pairing)
    except ExportError as error:
        return {"export": f"refused: {error}"}
    equal = found.padding < 1e-4
    return {
        "export": "yes",
        "log-prob": f"{found.logprob_difference:.0e}",
        "greedy": f"{found.greedy:.0%}",
        "beams": f"{found.beams:.0%}",
        _PADDING: "yes" if equal else f"no, {found.padding:.2f}; transformers {found.torch_padding:.2f}",
    }


def write(found: Mapping[str, Cells], half: Mapping[str, Cells]) -> None:
    """Write the page with new rows, over the old ones of the same pairings.

    Args:
        found: Cells of each pairing, from `measured`.
        half: Rows of `half_table`, for the sizes of their engines.
    """
    rows = {name: dict(cells) for name, cells in {**_read(), **found}.items()}
    for name, cells in rows.items():
        cells.update({column: half.get(name, {}).get(column, "") for column in _ENGINES})
    packages = {name: version(name) for name in ("transformers", "torch", "onnxruntime")}
    packages["TensorRT-RTX"] = version("tensorrt-rtx-cu13")
    families = supported_families()
    sections = [
        INTRODUCTION.format(versions=", ".join(f"{name} {number}" for name, number in packages.items())),
        f"## Encoders\n\nEach with a {DECODER} decoder.\n",
        markdown_table.write((*COLUMNS, _PADDING), _ordered(ENCODER_ROWS, rows)),
        f"## Decoders\n\nEach with a {ENCODER} encoder.\n",
        markdown_table.write(COLUMNS, _ordered(DECODER_ROWS, rows)),
        "## Refused\n\nDecoders that transformers registers with cross-attention, and why they are not exported.\n",
        markdown_table.write(["why"], [(name, {"why": reason}) for name, reason in families.refused.items()]).strip(),
        OTHER_AUDIO.format(types=", ".join(families.other_audio)),
    ]
    TABLE.write_text("\n".join(sections) + "\n", encoding="utf-8")


def _read() -> dict[str, Cells]:
    return markdown_table.read(TABLE.read_text(encoding="utf-8"))


def _ordered(order: Iterable[Pairing], rows: Mapping[str, Cells]) -> list[tuple[str, Cells]]:
    return [(row.name, rows[row.name]) for row in order if row.name in rows]
