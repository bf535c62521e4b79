"""A cache on disk for graphs that ONNX Runtime has optimised, so that the next load need not repeat it.

The name of an entry depends on everything that the optimisation depends on: the graph and its weights, the version of
ONNX Runtime, the providers with their options, the level, threads, and the instruction sets of the processor, since
level "all" lays out weights for them. So a stale entry is never found, and any entry may be deleted. An entry records
the SHA-256 of its files; a changed one is not loaded but written again.
"""

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
from ...paths import expanded
from ...system import bytes_saturate, instruction_sets
from ..cache_directory import cache_name, private_directory, record_problems, write_record
from ..options import SessionOptions

logger = logging.getLogger(__name__)


class OpenGraph(Protocol):
    """Make a session of the graph at `path`.

    With `optimized`, the graph has been optimised before. `save_to` is the file to write the optimised graph to, with
    its weights beside it.
    """

    def __call__(self, path: Path, *, optimized: bool = False, save_to: Path | None = None) -> Any:
        """Raise `SpeechError` if the graph cannot be loaded or saved."""


def cache_entry(bundle: Bundle, graph: str, options: SessionOptions, runtime_version: str, threads: int) -> Path:
    """Return the directory for the optimised `graph` of `bundle`, which need not exist.

    Args:
        bundle: Bundle whose manifest has the SHA-256 of the graph and its weights.
        graph: Name of the graph.
        options: Options with an `optimized_model_cache`.
        runtime_version: Version of ONNX Runtime.
        threads: Number of threads for one operator of this graph.
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
            sorted(instruction_sets()),
            bytes_saturate(),
        ],
    }
    return Path(expanded(options.optimized_model_cache or ".")) / f"{graph}-{cache_name(known)}"


def open_through_cache(entry: Path, graph: Path, open_graph: OpenGraph, *, check_hashes: bool = True) -> Any:
    """Make a session of the optimised graph in `entry`; write the entry first if it does not exist.

    If the cache cannot be read or written, a warning is logged and the graph of the bundle is loaded.

    Args:
        entry: Directory, as `cache_entry` returns it.
        graph: Path of the graph in the bundle.
        open_graph: Function that makes the session.
        check_hashes: If true, compare the SHA-256 of the files in `entry`; sizes are always compared.

    Raises:
        SpeechError: The graph of the bundle cannot be loaded.
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
        session = open_graph(graph)  # raises again if the graph itself is damaged
        logger.warning("The optimised %s cannot be written: %s", graph.name, error)
        return session
    try:
        write_record(staging)
        publish(staging, entry)
    except OSError as error:
        if not entry.is_dir():  # another process may have published it meanwhile
            logger.warning("The optimised %s cannot be written: %s", graph.name, error)
    return session
