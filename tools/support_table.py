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
    NATIVE_ROWS,
    Pairing,
    measure,
    model_type,
)
from speech_export import ExportError
from speech_export.families.listing import supported_families
from speech_export.families.registry import growing_caches

TABLE = Path(__file__).resolve().parents[1] / "docs" / "support.md"
INTRODUCTION = """# What can be exported

Written by `make matrix` with {versions}. Each row is a tiny model with random
weights. It is exported, run on ONNX Runtime's CPU provider, and compared with transformers on a padded batch of three
clips of unrelated lengths. The TensorRT engines are parsed and built on a CPU; they have not run on a GPU.

What to read: *export* says whether a family works, and *greedy* and *beams* that it finds transformers' tokens.

- **log-prob**: largest difference of a log-probability from transformers, in float32.
- **greedy**, **beams**: share of tokens equal to transformers', in greedy search and for the 2 best of 4 beams.
- **fp32 engines**, **fp16 engines**: size of the three TensorRT-RTX engines of graphs for a GPU, in float32 and in half
  precision, strongly typed, with two profiles for the decoder. Engines of models this small are mostly kernels.
  [Half precision](half_precision.md#every-family) has the accuracy of fp16.
- **cache for CUDA**: "shared" if the beams of an utterance share one, in which nothing is reordered. A cache that grows
  is reordered at every step, and its steps cannot be recorded as CUDA graphs.
- **batch = single**: "yes" if the encoder computes the same for a clip alone as in a padded batch (to 1e-4). Otherwise
  the largest difference, which is as large in transformers: its convolutions or norms see the padding. `transcribe`
  encodes such clips one by one, so that the text of a clip never depends on its batch; `generate` takes a
  batch as it is.
"""
REFUSED = """## Refused

Decoders with cross-attention, and speech models, of transformers that are not exported, and the reason.
"""
OTHER_AUDIO = """
Other audio models of transformers cannot be the encoder of a `SpeechEncoderDecoderModel`: they cannot downsample an
attention mask, so a padded batch does not run. They are refused: {types}.
"""

_ENGINES = (FP32_ENGINES, FP16_ENGINES)
_PADDING = "batch = single"
_CACHE = "cache for CUDA"
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
    """Write the page; new rows replace those of the same pairings.

    Args:
        found: Cells of each pairing, from `measured`.
        half: Rows of `half_table`, for the sizes of their engines.
    """
    rows = {name: dict(cells) for name, cells in {**_read(), **found}.items()}
    for name, cells in rows.items():
        cells.update({column: half.get(name, {}).get(column, "") for column in _ENGINES})
    growing = growing_caches()
    for row in DECODER_ROWS:
        if row.name in rows:
            reason = growing.get(model_type(row.name))
            rows[row.name][_CACHE] = "shared" if reason is None else f"grows: {reason}"
    packages = {name: version(name) for name in ("transformers", "torch", "onnxruntime")}
    packages["TensorRT-RTX"] = version("tensorrt-rtx-cu13")
    families = supported_families()
    sections = [
        INTRODUCTION.format(versions=", ".join(f"{name} {number}" for name, number in packages.items())),
        f"## Encoders\n\nEach with a {DECODER} decoder.\n",
        markdown_table.write((*COLUMNS, _PADDING), _ordered(ENCODER_ROWS, rows)),
        f"## Decoders\n\nEach with a {ENCODER} encoder.\n",
        markdown_table.write((*COLUMNS, _CACHE), _ordered(DECODER_ROWS, rows)),
        "## Speech seq2seq models\n\nModels of transformers with a decoder of their own.\n",
        markdown_table.write((*COLUMNS[:4], _PADDING), _ordered(NATIVE_ROWS, rows)),
        REFUSED,
        markdown_table.write(["why"], [(name, {"why": reason}) for name, reason in families.refused.items()]).strip(),
        OTHER_AUDIO.format(types=", ".join(families.other_audio)),
    ]
    TABLE.write_text("\n".join(sections) + "\n", encoding="utf-8")


def _read() -> dict[str, Cells]:
    return markdown_table.read(TABLE.read_text(encoding="utf-8"))


def _ordered(order: Iterable[Pairing], rows: Mapping[str, Cells]) -> list[tuple[str, Cells]]:
    return [(row.name, rows[row.name]) for row in order if row.name in rows]
