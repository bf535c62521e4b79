"""Reads the arrays of a `flax_model.msgpack`, the format of `flax.serialization.msgpack_serialize`, without Flax."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from ...errors import ExportError

Array = NDArray[np.floating[Any]]

_NDARRAY, _NUMPY_SCALAR = 1, 3
"""Flax's extension types that hold an array, packed as (shape, name of the dtype, row-major bytes)."""

_CHUNKED = "__msgpack_chunked_array__"
"""Key of a map that holds the shape and the chunks of an array above 1 GiB."""


def read_arrays(path: Path) -> dict[str, Array]:
    """Return every array of the file by its path in the tree, joined by `/`.

    Args:
        path: A `flax_model.msgpack`.

    Returns:
        Arrays in the dtype of the file: float32, float16 or float64. bfloat16, which NumPy lacks, is widened to
        float32. They may be read-only.

    Raises:
        ExportError: The file is empty, truncated or not MessagePack, or has a value that is not an array of floats.
    """
    return {name: _decoded(leaf, name, path) for name, leaf in _leaves(_read_tree(path))}


def _read_tree(path: Path) -> dict[str, Any]:
    if path.stat().st_size == 0:
        raise ExportError(f"{path} is empty; copy or download it again")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            tree = msgpack.unpackb(content)
    except (ValueError, msgpack.UnpackException) as error:
        raise ExportError(
            f"{path} is truncated or not a Flax checkpoint ({error}); copy or download it again"
        ) from error
    if not isinstance(tree, dict):
        raise ExportError(f"{path} holds a {type(tree).__name__}, not a tree of arrays: it is not a Flax checkpoint")
    return tree


def _leaves(tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each leaf with its path, and remove it from the tree to free the packed array once it is decoded."""
    pending: list[tuple[str, Any]] = [(key, tree.pop(key)) for key in list(tree)]
    while pending:
        name, node = pending.pop()
        if isinstance(node, dict) and _CHUNKED not in node:
            pending.extend((f"{name}/{key}", node.pop(key)) for key in list(node))
        else:
            yield name, node


def _decoded(leaf: Any, name: str, path: Path) -> Array:
    try:
        if isinstance(leaf, dict):
            pieces = [_unpacked(piece) for piece in _in_order(leaf["chunks"])]
            return np.concatenate(pieces).reshape(_in_order(leaf["shape"]))
        return _unpacked(leaf)
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
        raise ExportError(f"{path}: {name} is not an array of floats ({error}); save the checkpoint again") from error


def _unpacked(leaf: Any) -> Array:
    if not isinstance(leaf, msgpack.ExtType) or leaf.code not in (_NDARRAY, _NUMPY_SCALAR):
        raise TypeError(f"it is a {type(leaf).__name__}")
    shape, dtype, content = msgpack.unpackb(leaf.data)
    if dtype == "bfloat16":  # the upper half of a float32
        flat: Array = (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif np.dtype(dtype).kind == "f":
        flat = np.frombuffer(content, dtype)
    else:
        raise TypeError(f"its dtype is {dtype}")
    return flat.reshape(shape)


def _in_order(sequence: dict[str, Any]) -> list[Any]:
    """Return a sequence, which Flax writes as a map from positions to items."""
    return [sequence[str(position)] for position in range(len(sequence))]
