"""Bundles in archives of a few dozen KB: without their large weights, which are made up again where they are unpacked.

The numbers that are made up have the mean, spread and range of the real ones, and are the same at every unpacking. They
do for comparing one device with another; what the model says means nothing.
"""

import json
import tarfile
import tempfile
import zlib
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.manifest import MANIFEST, Manifest
from speech_runtime.bundle.safe_files import FileFacts

_FORGOTTEN_FROM = 256
"""Least number of values in a tensor that is forgotten: small ones are norms, scales and shapes."""
_DTYPES: dict[int, Any] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
_CHUNK = 2**24
_SAMPLE = 10**6
"""Number of values to take mean and deviation of."""
_WEIGHTS = "weights.json"


@dataclass(frozen=True)
class Spread:
    """What is kept of a forgotten tensor: its mean, standard deviation, smallest and largest value."""

    mean: float
    deviation: float
    least: float
    most: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> "Spread":
        some = values.ravel()[:: max(1, values.size // _SAMPLE)].astype(np.float64)
        return cls(float(some.mean()), float(some.std()), float(values.min()), float(values.max()))

    def make_up(self, name: str, count: int, dtype: Any) -> NDArray[Any]:
        """Return `count` values of that spread, evenly distributed; each name has others."""
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        found = np.empty(count, dtype=dtype)
        for begin in range(0, count, _CHUNK):
            part = generator.random(min(_CHUNK, count - begin), dtype=np.float32)
            spread = np.float32(self.mean) + np.float32(self.deviation * 12**0.5) * (part - np.float32(0.5))
            found[begin : begin + part.size] = spread.clip(self.least, self.most)
        return found


def pack(bundle: Path, archive: Path, *, keep_weights: bool = False) -> None:
    """Write a bundle to `archive`, a .tar.xz, with all its weights or without the large ones."""
    with tempfile.TemporaryDirectory() as scratch:
        shell, described = Path(scratch) / "bundle", {}
        shell.mkdir()
        for path in sorted(bundle.iterdir()):
            if path.is_file() and (keep_weights or path.suffix != ".data"):
                (shell / path.name).write_bytes(path.read_bytes())
        if not keep_weights:
            described = {graph: _forget_weights(shell / f"{graph}.onnx", bundle) for graph in GRAPHS}
        (shell / _WEIGHTS).write_text(json.dumps(described))
        partial = archive.with_name(f"{archive.name}.partial")
        with tarfile.open(partial, "w:xz") as tar:
            tar.add(shell, "bundle")
        partial.replace(archive)


def unpack(archive: Path, directory: Path) -> Path:
    """Unpack an archive of `pack` into `directory`, which is made, and return the directory of the bundle."""
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    bundle = directory / "bundle"
    weights = bundle / _WEIGHTS
    described: dict[str, dict[str, Any]] = json.loads(weights.read_text())
    weights.unlink()
    for graph, tensors in described.items():
        _make_up_weights(bundle / f"{graph}.onnx", tensors)
    if described:
        manifest = Manifest.read(bundle)
        files = {path.name: FileFacts.of(path) for path in sorted(bundle.iterdir()) if path.name != MANIFEST}
        replace(manifest, files=files, verification=None).write(bundle)
    return bundle


def _forget_weights(path: Path, bundle: Path) -> dict[str, Any]:
    """Empty the large tensors of the graph at `path`, and describe them and the data file beside the original."""
    model, described = onnx.load(path, load_external_data=False), {}
    for tensor in model.graph.initializer:
        external = tensor.data_location == TensorProto.EXTERNAL
        values = numpy_helper.to_array(tensor, str(bundle))
        forget = tensor.data_type in _DTYPES and values.size >= _FORGOTTEN_FROM and np.isfinite(values).all()
        if forget:
            described[tensor.name] = asdict(Spread.of(values))
            if not external:
                tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=list(tensor.dims)))
        elif external:
            described[tensor.name] = {"content": b64encode(values.tobytes()).decode()}
    onnx.save(model, path)
    return described


def _make_up_weights(path: Path, described: dict[str, Any]) -> None:
    """Fill the tensors of the graph at `path` again, and write the data file beside it if they are in one."""
    model = onnx.load(path, load_external_data=False)
    data = path.with_name(f"{path.name}.data")
    for tensor in model.graph.initializer:
        if tensor.name not in described:
            continue
        content = _content(tensor, f"{path.name} {tensor.name}", described[tensor.name])
        if tensor.data_location != TensorProto.EXTERNAL:
            tensor.raw_data = content
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        with data.open("r+b" if data.exists() else "w+b") as file:
            file.seek(int(where.get("offset", 0)))
            file.write(content)
    onnx.save(model, path)


def _content(tensor: TensorProto, name: str, described: dict[str, Any]) -> bytes:
    if "content" in described:
        return b64decode(described["content"])
    return Spread(**described).make_up(name, prod(tensor.dims), _DTYPES[tensor.data_type]).tobytes()
