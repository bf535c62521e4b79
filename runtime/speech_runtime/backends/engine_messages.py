"""Errors of engines in one line; cuDNN alone writes thousands of characters of JSON. The log has the whole text."""

import logging
import re
from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

_MOST_CHARACTERS = 300
"""Largest length of a cause: two or three lines of a terminal."""

_NODE = re.compile(r"running (?P<kind>\S+) node\. Name:'(?P<name>[^']*)' Status Message: (?P<reason>.*)", re.DOTALL)
_LIBRARY = re.compile(r"\b(?P<failure>CU[A-Z_]+ failure -?\d+: [^;{]*?) ;(?P<details>.*)", re.DOTALL)
"""A failed call as ONNX Runtime describes it: the library's error, then "; GPU=0 ; hostname=… ; expr=the call"."""
_CALL = re.compile(r"\bexpr=(?P<call>.*?);\s")
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE = re.compile(r"/\S+\.(?:cc|cpp|cu|cuh|h|hpp):\d+ .*?\)(?: const)?(?: \[with [^\]]*\])? ")
"""A place in C++: file, line and signature of the function."""
_ANOTHER_CACHE = re.compile(r"\.(?:[1-9]\d*\.\w+|0\.value)$")
"""Names of caches that have the shape of `past.0.key` or `cross.0.key`."""


def failed_run(graph: str, error: Exception, shapes: Mapping[str, Sequence[int]]) -> str:
    """Return the message for a run that failed: graph, node and shapes, then the cause; log the whole text.

    Args:
        graph: Name of the graph.
        error: Error of the engine.
        shapes: Shapes of the inputs by name. Of the caches, which are alike, one is written.
    """
    text = str(error)
    logger.debug("%s failed: %s", graph, text)
    node = _NODE.search(text)
    where = f" in {node['kind']} {node['name']!r}" if node else ""
    sizes = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items() if not _ANOTHER_CACHE.search(name))
    return f"{graph} failed{where}, {sizes}: {in_one_line(node['reason'] if node else text)}"


def in_one_line(message: str) -> str:
    """Return the cause out of a message of an engine: one line, cut after 300 characters."""
    failure = _LIBRARY.search(message)
    if failure is None:
        return _cut(_PREFIX.sub("", message))
    call = _CALL.search(f"{failure['details']} ")
    return _cut(failure["failure"] + (f" in {call['call']}" if call else ""))


def _cut(text: str) -> str:
    line = _SOURCE.sub("", " ".join(text.split()))
    return line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}… (the log has all of it, level debug)"
