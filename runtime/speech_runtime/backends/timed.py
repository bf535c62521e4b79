"""A backend that notes when each graph began and ended."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .base import Backend, Prepared, Value


class Run(NamedTuple):
    """One run of `graph`; `begin` and `end` in seconds of `time.perf_counter`."""

    graph: str
    begin: float
    end: float


class TimedBackend:
    """Another backend, with a clock; see `base.Backend`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.runs: list[Run] = []

    @property
    def on_host(self) -> bool:
        """See `Backend.on_host`."""
        return self._backend.on_host

    @property
    def recordings(self) -> int:
        """See `Backend.recordings`."""
        return self._backend.recordings

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Value:
        """A tensor on the device."""
        return self._backend.allocate(shape, dtype)

    def write(self, value: Value, array: NDArray[Any]) -> None:
        """Copy an array into a tensor."""
        self._backend.write(value, array)

    def upload(self, array: NDArray[Any]) -> Value:
        """Copy an array to the device."""
        return self._backend.upload(array)

    def share(self, array: NDArray[Any]) -> Value:
        """A tensor in the memory of `array`."""
        return self._backend.share(array)

    def download(self, value: Value) -> NDArray[Any]:
        """Copy a tensor to the host."""
        return self._backend.download(value)

    def synchronize(self) -> None:
        """Wait until all runs are done."""
        self._backend.synchronize()

    def dtype(self, graph: str, name: str) -> np.dtype[Any]:
        """Of an input of `graph`."""
        return self._backend.dtype(graph, name)

    def prepare(
        self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str], into: Mapping[str, Value]
    ) -> Prepared:
        """A run that goes to its end, and is noted."""
        prepared, synchronize = self._backend.prepare(graph, inputs, outputs, into), self._backend.synchronize

        def run() -> dict[str, Value]:
            begin = time.perf_counter()
            results = prepared()
            synchronize()
            self.runs.append(Run(graph, begin, time.perf_counter()))
            return results

        return run

    def run(self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str]) -> dict[str, Value]:
        """Run `graph` to its end, and note it."""
        return self.prepare(graph, inputs, outputs, {})()
