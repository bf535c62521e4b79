"""A base class for backends that wrap another backend, to measure or to observe it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Backend, Prepared, Value


class ForwardingBackend:
    """Forwards every call to another backend. `run` goes through `prepare`, so subclasses override only that one."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def on_host(self) -> bool:
        """See `Backend.on_host`."""
        return self.backend.on_host

    @property
    def recordings(self) -> int:
        """See `Backend.recordings`."""
        return self.backend.recordings

    @property
    def recording_memory(self) -> int | None:
        """See `Backend.recording_memory`."""
        return self.backend.recording_memory

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Value:
        """See `Backend.allocate`."""
        return self.backend.allocate(shape, dtype)

    def write(self, value: Value, array: NDArray[Any]) -> None:
        """See `Backend.write`."""
        self.backend.write(value, array)

    def upload(self, array: NDArray[Any]) -> Value:
        """See `Backend.upload`."""
        return self.backend.upload(array)

    def share(self, array: NDArray[Any]) -> Value:
        """See `Backend.share`."""
        return self.backend.share(array)

    def download(self, value: Value) -> NDArray[Any]:
        """See `Backend.download`."""
        return self.backend.download(value)

    def synchronize(self) -> None:
        """See `Backend.synchronize`."""
        self.backend.synchronize()

    def dtype(self, graph: str, name: str) -> np.dtype[Any]:
        """See `Backend.dtype`."""
        return self.backend.dtype(graph, name)

    def prepare(
        self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str], into: Mapping[str, Value]
    ) -> Prepared:
        """See `Backend.prepare`."""
        return self.backend.prepare(graph, inputs, outputs, into)

    def run(self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str]) -> dict[str, Value]:
        """See `Backend.run`."""
        return self.prepare(graph, inputs, outputs, {})()
