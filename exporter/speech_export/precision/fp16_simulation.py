"""A half-precision bundle that returns on a CPU what it would return on a GPU."""

import shutil
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from speech_runtime import SessionOptions
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.loading import Bundle
from speech_runtime.bundle.safe_files import FileFacts

from ..passes.half.convert import round_explicitly
from ..tracing.tracer import save

ROUNDED = SessionOptions(graph_optimization="disabled")
"""Options to load a rounded bundle with: ONNX Runtime's optimisations would remove the casts that round."""


def write_rounded(half: Path, directory: Path) -> None:
    """Write a bundle whose graphs round as a GPU does, and otherwise compute in float32; see `round_explicitly`.

    It has the interface and all other files of the half-precision bundle. It is slow, and for measuring only.

    Args:
        half: Directory of the half-precision bundle.
        directory: Directory to write; it must not exist yet.
    """
    bundle = Bundle.open(half, check_hashes=False)
    directory.mkdir(parents=True)
    others = [name for name in bundle.manifest.files if name.partition(".onnx")[0] not in GRAPHS]
    for name in others:
        shutil.copy2(bundle.path(name), directory)
    for graph in GRAPHS:
        model = ir.load(bundle.path(f"{graph}.onnx"))
        round_explicitly(model)
        ir.external_data.load_to_model(model)
        save(model, directory / f"{graph}.onnx")
    files = {path.name: FileFacts.of(path) for path in sorted(directory.iterdir())}
    replace(bundle.manifest, files=files).write(directory)
