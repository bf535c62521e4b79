"""Carry a bundle to another machine without its weights: a study of latency needs only their shapes.

python benchmarks/weightless.py pack BUNDLE DIRECTORY    # 0.4 MB of a bundle with 1.5 GiB; needs the extra `export`
python benchmarks/weightless.py fill DIRECTORY BUNDLE    # there: random weights; needs the runtime alone
"""

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from speech_runtime.atomic.writing import publish, staging_directory
from speech_runtime.bundle.manifest import MANIFEST, Manifest
from speech_runtime.bundle.safe_files import FileFacts
from speech_runtime.dataclass_json import from_json

LAYOUT = "weights.json"
"""File that has the place of everything in the files that were left out."""

_SUFFIX = ".data"
_SCALE = 0.02
_BLOCK = 1 << 22
"""Numbers that are drawn; all weights repeat them."""


@dataclass(frozen=True)
class Part:
    """A part of a file of weights, which holds numbers of one dtype.

    Attributes:
        offset: First byte.
        size: Number of bytes.
        dtype: "float32" or "float16" of random numbers; None for others, which are kept.
        content: The bytes that are kept, in base64; None for random numbers.
    """

    offset: int
    size: int
    dtype: str | None
    content: str | None


@dataclass(frozen=True)
class Weights:
    """A file of weights: its size in bytes, and its parts."""

    size: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Layout:
    """All files of weights of a bundle, by name."""

    files: dict[str, Weights]


def pack(bundle: Path, directory: Path) -> None:
    """Copy `bundle` to the new `directory` without its weights."""
    with staging_directory(directory) as staging:
        for path in bundle.iterdir():
            if path.is_file() and path.suffix != _SUFFIX:
                shutil.copy(path, staging / path.name)
        files = {f"{path.name}{_SUFFIX}": _weights(path) for path in sorted(bundle.glob("*.onnx"))}
        layout = Layout({name: weights for name, weights in files.items() if weights is not None})
        (staging / LAYOUT).write_text(json.dumps(asdict(layout)))
        publish(staging, directory)


def fill(directory: Path, bundle: Path) -> None:
    """Make a bundle out of what `pack` wrote: floats are normally distributed, all other numbers are as they were."""
    layout = from_json(Layout, json.loads((directory / LAYOUT).read_text()))
    numbers = np.random.default_rng(0).standard_normal(_BLOCK, dtype=np.float32) * np.float32(_SCALE)
    with staging_directory(bundle) as staging:
        for path in directory.iterdir():
            if path.name != LAYOUT:
                shutil.copy(path, staging / path.name)
        manifest = Manifest.read(staging)
        files = dict(manifest.files)
        for name, weights in layout.files.items():
            with (staging / name).open("wb") as file:
                file.truncate(weights.size)
                for part in weights.parts:
                    file.seek(part.offset)
                    for piece in _pieces(part, numbers):
                        file.write(piece)
            files[name] = FileFacts.of(staging / name)
        replace(manifest, files=files, source=f"{manifest.source}, weights made up", verification=None).write(staging)
        publish(staging, bundle)


def _weights(graph: Path) -> Weights | None:
    """Describe the file of weights beside `graph`; None if there is none."""
    import onnx

    data = graph.with_name(f"{graph.name}{_SUFFIX}")
    if not data.exists():
        return None
    kinds = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16"}
    parts = []
    with data.open("rb") as file:
        for tensor in onnx.load(graph, load_external_data=False).graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                where = {entry.key: entry.value for entry in tensor.external_data}
                offset, size, dtype = int(where.get("offset", 0)), int(where["length"]), kinds.get(tensor.data_type)
                parts.append(Part(offset, size, dtype, None if dtype else _kept(file, offset, size)))
    return Weights(data.stat().st_size, tuple(parts))


def _kept(file: Any, offset: int, size: int) -> str:
    file.seek(offset)
    return base64.b64encode(file.read(size)).decode()


def _pieces(part: Part, numbers: Any) -> Iterator[bytes]:
    if part.dtype is None:
        yield base64.b64decode(part.content or "")
        return
    block = numbers.astype(part.dtype).tobytes()
    for begin in range(0, part.size, len(block)):
        yield block[: part.size - begin]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Carry a bundle to another machine without its weights."""


_PATH = click.Path(path_type=Path)
_THERE = click.Path(path_type=Path, exists=True, file_okay=False)


@main.command("pack")
@click.argument("bundle", type=_THERE)
@click.argument("directory", type=_PATH)
def pack_command(bundle: Path, directory: Path) -> None:
    """Copy BUNDLE to DIRECTORY without its weights."""
    if not (bundle / MANIFEST).exists():
        raise click.ClickException(f"{bundle} has no {MANIFEST}, so it is not a bundle")
    pack(bundle, directory)


@main.command("fill")
@click.argument("directory", type=_THERE)
@click.argument("bundle", type=_PATH)
def fill_command(directory: Path, bundle: Path) -> None:
    """Make BUNDLE out of DIRECTORY, with random weights."""
    if not (directory / LAYOUT).exists():
        raise click.ClickException(f"{directory} has no {LAYOUT}, so `pack` has not made it")
    fill(directory, bundle)


if __name__ == "__main__":
    main()
