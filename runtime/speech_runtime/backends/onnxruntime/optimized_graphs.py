"""Graphs as ONNX Runtime leaves them after its optimisation, on disk, so that the next load need not repeat it.

Whatever the outcome of that optimisation depends on is in the name of an entry: the graph and its weights, the release
of ONNX Runtime, the providers with their options, the level, threads, and the instructions of this processor, since the
level "all" lays out weights for them. A stale entry is never found; it is safe to delete any. An entry has the SHA-256
of its files in a file of its own: one that was changed is not loaded, but written again.
"""

import hashlib
import json
import logging
import platform
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...atomic.writing import publish, staging_directory
from ...bundle.loading import Bundle
from ...bundle.safe_files import pinned
from ...dataclass_json import listed
from ...errors import SpeechError
from ..cache_directory import private_directory, record_problems, write_record
from .cpu_features import bytes_saturate, instructions
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


def cache_entry(bundle: Bundle, graph: str, options: SessionOptions, runtime_version: str, threads: int) -> Path:
    """The directory of the optimised `graph` of `bundle`, whether it is there or not.

    Args:
        bundle: whose manifest has the SHA-256 of the graph and its weights.
        graph: its name.
        options: with an `optimized_model_cache`.
        runtime_version: of ONNX Runtime.
        threads: of one operator of this graph.
    """
    files = {name: facts.sha256 for name, facts in bundle.manifest.files.items() if name.startswith(f"{graph}.onnx")}
    known = {
        "files": files,
        "onnxruntime": runtime_version,
        "providers": options.execution_providers,
        "graph_optimization": options.graph_optimization,
        "threads": [threads, options.inter_op_threads],
        "processor": [
            platform.machine(),
            np.show_config(mode="dicts")["SIMD Extensions"],
            sorted(instructions()),
            bytes_saturate(),
        ],
    }
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return Path(options.optimized_model_cache or ".") / f"{graph}-{digest[:_DIGEST_LENGTH]}"


def open_through_cache(entry: Path, graph: Path, open_graph: OpenGraph, *, check_hashes: bool = True) -> Any:
    """Make a session of the optimised graph in `entry`, which is written first where it is not there.

    A cache that cannot be read or written costs time only: it is logged, and the graph itself is loaded.

    Args:
        entry: of `cache_entry`.
        graph: the graph in the bundle.
        open_graph: makes the session.
        check_hashes: compare the SHA-256 of the files in `entry`; sizes are always compared.

    Raises:
        SpeechError: the graph itself cannot be loaded.
    """
    try:
        private_directory(entry.parent)
    except OSError as error:
        logger.warning("The cache of optimised graphs %s is not used: %s", entry.parent, error.strerror)
        return open_graph(graph)
    if entry.is_dir():
        try:
            return _open_entry(entry, graph.name, open_graph, check_hashes)
        except (SpeechError, OSError, ValueError) as error:
            logger.warning("The optimised graph %s is not used, and written again: %s", entry, error)
            shutil.rmtree(entry, ignore_errors=True)
    try:
        with staging_directory(entry) as staging:
            return _optimize(staging, entry, graph, open_graph)
    except OSError as error:
        logger.warning("The cache of optimised graphs cannot be written: %s", error)
        return open_graph(graph)


def _open_entry(entry: Path, name: str, open_graph: OpenGraph, check_hashes: bool) -> Any:
    with pinned(entry) as pin:
        for path in pin.path.iterdir():
            pin.watch(path.name)
        problems = record_problems(pin.path, check_hashes=check_hashes)
        if problems:
            raise ValueError(listed(list(problems.values())))
        session = open_graph(pin.path / name, optimized=True)
        if not pin.unchanged():
            raise ValueError("it was changed while it was loaded")
        return session


def _optimize(staging: Path, entry: Path, graph: Path, open_graph: OpenGraph) -> Any:
    try:
        session = open_graph(graph, save_to=staging / graph.name)
    except SpeechError as error:
        session = open_graph(graph)  # raises again where the graph itself is at fault
        logger.warning("The optimised %s cannot be written: %s", graph.name, error)
        return session
    try:
        write_record(staging)
        publish(staging, entry)
    except OSError as error:
        if not entry.is_dir():  # nor has another process put it there in the meantime
            logger.warning("The optimised %s cannot be written: %s", graph.name, error)
    return session
