"""Graphs as ONNX Runtime leaves them after its optimisation, on disk, so that the next load need not repeat it.

Whatever the outcome of that optimisation depends on is in the name of an entry: the graph and its weights, the release
of ONNX Runtime, the providers with their options, the level, and the instructions of this processor, since the level
"all" lays out weights for them. A stale entry is never found; it is safe to delete any.
"""

import hashlib
import json
import logging
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..bundle import Bundle
from ..errors import SpeechError
from .processor import bytes_saturate
from .session_options import SessionOptions

logger = logging.getLogger(__name__)

_DIGEST_LENGTH = 32


class OpenGraph(Protocol):
    """Make a session of the graph at `path`.

    `optimized` says that the graph was optimised before; `save_to` is a file that the optimised graph is written to,
    and its weights beside it.
    """

    def __call__(self, path: Path, *, optimized: bool = False, save_to: Path | None = None) -> Any:
        """Raises SpeechError where the graph cannot be loaded, or not be saved."""


def cache_entry(bundle: Bundle, graph: str, options: SessionOptions, runtime_version: str) -> Path:
    """The directory of the optimised `graph` of `bundle`, whether it is there or not.

    Args:
        bundle: whose manifest has the SHA-256 of the graph and its weights.
        graph: its name.
        options: with an `optimized_model_cache`.
        runtime_version: of ONNX Runtime.
    """
    files = {name: facts.sha256 for name, facts in bundle.manifest.files.items() if name.startswith(f"{graph}.onnx")}
    known = {
        "files": files,
        "onnxruntime": runtime_version,
        "providers": options.execution_providers,
        "graph_optimization": options.graph_optimization,
        "processor": [platform.machine(), np.show_config(mode="dicts")["SIMD Extensions"], bytes_saturate()],
    }
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return Path(options.optimized_model_cache or ".") / f"{graph}-{digest[:_DIGEST_LENGTH]}"


def open_through_cache(entry: Path, graph: Path, open_graph: OpenGraph) -> Any:
    """Make a session of the optimised graph in `entry`, which is written first where it is not there.

    A cache that cannot be read or written costs time only: it is logged, and the graph itself is loaded.

    Args:
        entry: of `cache_entry`.
        graph: the graph in the bundle.
        open_graph: makes the session.

    Raises:
        SpeechError: the graph itself cannot be loaded.
    """
    if entry.is_dir():
        try:
            return open_graph(entry / graph.name, optimized=True)
        except SpeechError as error:
            logger.warning("The optimised graph %s is not used, and written again: %s", entry, error)
            shutil.rmtree(entry, ignore_errors=True)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", suffix=".partial", dir=entry.parent))
    except OSError as error:
        logger.warning("The cache of optimised graphs cannot be written: %s", error)
        return open_graph(graph)
    try:
        return _optimize(staging, entry, graph, open_graph)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _optimize(staging: Path, entry: Path, graph: Path, open_graph: OpenGraph) -> Any:
    try:
        session = open_graph(graph, save_to=staging / graph.name)
    except SpeechError as error:
        session = open_graph(graph)  # raises again where the graph itself is at fault
        logger.warning("The optimised %s cannot be written: %s", graph.name, error)
        return session
    try:
        staging.chmod(0o755)  # mkdtemp lets nobody else in
        staging.rename(entry)
    except OSError as error:
        if not entry.is_dir():  # nor has another process put it there in the meantime
            logger.warning("The optimised %s cannot be written: %s", graph.name, error)
    return session
