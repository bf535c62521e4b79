"""Check that an ONNX graph reads its weights from its own files only: `GRAPH.onnx.*`, whose hashes the manifest has.

ONNX Runtime opens any file that a graph names. This module reads the few protobuf fields that name files, as defined in
`onnx.proto`, so it needs no ONNX package.
"""

import mmap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from .safe_files import open_regular

_CHILDREN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
"""Numbers of the fields that contain tensors, by message."""
_EXTERNAL_DATA, _KEY, _VALUE = 13, 1, 2
_MARK = b"location"
"""Bytes in every message that names a file."""
_DEEPEST = 64
_KNOWN_KEYS = {"location", "offset", "length", "checksum"}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Range = tuple[int, int]


def external_data_problems(graph: Path, sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield the problems of the files that a graph reads weights from.

    Args:
        graph: Path of an ONNX file.
        sizes: Size in bytes of each file of the bundle.

    Raises:
        OSError: The graph cannot be read.
    """
    with open_regular(graph) as file:
        if not file.seek(0, 2):
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            taken: dict[str, set[Range]] = {}
            try:
                for record in _records(content, (0, len(content)), "model", 0):
                    yield from _record_problems(graph.name, record, sizes, taken)
            except (ValueError, IndexError):
                yield f"{graph.name} is not an ONNX graph"
                return
    for name, ranges in taken.items():
        ordered = sorted(ranges)
        if any(first[1] > second[0] for first, second in pairwise(ordered)):
            yield f"{graph.name} reads two weights from the same bytes of {name}"


def _record_problems(
    graph: str, record: list[tuple[str, str]], sizes: Mapping[str, int], taken: dict[str, set[Range]]
) -> Iterator[str]:
    keys = [key for key, _ in record]
    known = dict(record)
    name = known.get("location", "")
    if len(set(keys)) < len(keys) or not set(keys) <= _KNOWN_KEYS:
        yield f"{graph} describes a weight with unknown fields ({', '.join(keys)[:80]})"
    elif name not in sizes:
        yield f"{graph} reads weights from {name[:80]!r}, which is not a file of the bundle"
    elif not name.startswith(f"{graph}."):  # caches and engines identify a graph by the names and hashes of its files
        yield f"{graph} reads weights from {name[:80]!r}, which is not one of its own files ({graph}.*)"
    else:
        offset, length = known.get("offset", "0"), known.get("length", "0")
        numbers = all(number.isascii() and number.isdecimal() and len(number) < 20 for number in (offset, length))
        if not numbers or int(offset) + int(length) > sizes[name]:
            place = f"offset {offset[:30]}, {length[:30]} bytes"
            yield f"{graph} reads weights beyond the end of {name} ({place})"
        elif int(length):
            taken.setdefault(name, set()).add((int(offset), int(offset) + int(length)))


def _records(content: mmap.mmap, within: Range, message: str, depth: int) -> Iterator[list[tuple[str, str]]]:
    """Yield the keys and values of each tensor's `external_data`; tensors without any are skipped."""
    if content.find(_MARK, *within) < 0:
        return
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if message == "tensor":
        entries = [found for number, found in _fields(content, within) if number == _EXTERNAL_DATA]
        if entries:
            yield [_entry(content, entry) for entry in entries]
        return
    children = _CHILDREN[message]
    for number, found in _fields(content, within):
        if number in children:
            yield from _records(content, found, children[number], depth + 1)


def _entry(content: mmap.mmap, within: Range) -> tuple[str, str]:
    strings = {number: content[slice(*found)].decode("utf-8") for number, found in _fields(content, within)}
    return strings.get(_KEY, ""), strings.get(_VALUE, "")


def _fields(content: mmap.mmap, within: Range) -> Iterator[tuple[int, Range]]:
    """Yield number and byte range of each length-delimited field; other fields are skipped."""
    at, end = within
    while at < end:
        tag, at = _varint(content, at)
        kind = tag & 7
        if kind == _BYTES:
            length, at = _varint(content, at)
            if at + length > end:
                raise ValueError("cut off")
            yield tag >> 3, (at, at + length)
            at += length
        elif kind == _VARINT:
            _, at = _varint(content, at)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
    if at != end:
        raise ValueError("cut off")


def _varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for i in range(10):
        byte = content[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise ValueError("varint too long")
