"""Write docs/support.md: what was measured of every pairing of the matrix. `make matrix` runs it."""

import logging
import warnings
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.progress import track
from transformers.utils import logging as transformers_logging

from composites import ENCODERS
from matrix import (
    DECODER,
    DECODER_ROWS,
    ENCODER,
    ENCODER_ROWS,
    Measured,
    Pairing,
    measure,
    model_type,
    registered_encoders,
)
from speech_export import ExportError
from speech_export.families import refusals

TABLE = Path(__file__).resolve().parents[1] / "docs" / "support.md"
INTRODUCTION = """# What can be exported

Made by `make matrix` with {versions}: tiny models with random weights, exported, run
on ONNX Runtime's CPU provider and compared with transformers on a padded batch of three clips whose lengths are
multiples of nothing. The TensorRT engines are parsed and built on a CPU; they have not run on a GPU.

- **log-prob**: largest difference of a log-probability from transformers, float32.
- **greedy**, **beams**: share of tokens equal to transformers'; beams are 4, and the 2 best are compared.
- **engines**: size of the three TensorRT-RTX engines.
- **batch = single**: whether the encoder makes the same of a clip alone as in a padded batch (to 1e-4). Where it does
  not, transformers does not either, by as much: its convolutions or norms see the padding. `transcribe` encodes such
  clips one by one, so that a clip's answer never depends on its batch; `generate` takes a batch as it is given.
"""
OTHER_AUDIO = """
Other models of transformers that take audio are no encoders of a `SpeechEncoderDecoderModel`: they cannot downsample an
attention mask, so that it cannot run a padded batch. They are refused: {types}.
"""

Outcome = Measured | str


def outcome(pairing: Pairing) -> Outcome:
    """What was measured, or why the pairing was refused."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    transformers_logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    try:
        return measure(pairing)
    except ExportError as error:
        return str(error)


def write(outcomes: Mapping[str, Outcome]) -> None:
    """Write the table."""
    packages = {name: version(name) for name in ("transformers", "torch", "onnxruntime")}
    packages["TensorRT-RTX"] = version("tensorrt-rtx-cu12")
    masked, others = registered_encoders()
    sections = [
        INTRODUCTION.format(versions=", ".join(f"{name} {number}" for name, number in packages.items())),
        f"## Encoders\n\nEach with a {DECODER} decoder.\n",
        _table(ENCODER_ROWS, outcomes, padding=True),
        f"## Decoders\n\nEach with a {ENCODER} encoder.\n",
        _table(DECODER_ROWS, outcomes, padding=False),
        "## Refused\n\nDecoders that transformers registers with cross-attention, and why they are not exported.\n",
        "| | why |\n|---|---|",
        *(f"| {name} | {reason} |" for name, reason in sorted(refusals().items())),
        OTHER_AUDIO.format(types=", ".join(sorted((masked | others) - set(map(model_type, ENCODERS))))),
    ]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(sections) + "\n", encoding="utf-8")


def _table(rows: Iterable[Pairing], outcomes: Mapping[str, Outcome], padding: bool) -> str:
    columns = ["", "export", "log-prob", "greedy", "beams", "engines", *(["batch = single"] if padding else [])]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = _cells(outcomes[row.name])[: len(columns) - 1]
        lines.append("| " + " | ".join([row.name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _cells(found: Outcome) -> list[str]:
    if isinstance(found, str):
        return [f"refused: {found}", "", "", "", "", ""]
    equal = found.padding < 1e-4
    return [
        "yes",
        f"{found.logprob_difference:.0e}",
        f"{found.greedy:.0%}",
        f"{found.beams:.0%}",
        f"{found.engines / 2**20:.1f} MiB",
        "yes" if equal else f"no, {found.padding:.2f}; transformers {found.torch_padding:.2f}",
    ]


def main() -> None:
    """Measure every pairing, two at a time."""
    rows = [*ENCODER_ROWS, *DECODER_ROWS]
    with get_context("spawn").Pool(2, maxtasksperchild=8) as pool:
        found = track(pool.imap(outcome, rows), description="measuring", total=len(rows))
        outcomes = {row.name: result for row, result in zip(rows, found, strict=True)}
    write(outcomes)


if __name__ == "__main__":
    main()
