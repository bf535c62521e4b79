"""The protocol between the rest of the runtime and a backend, which runs the graphs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Value = Any
"""A tensor in the memory of the backend, which may be a GPU's. Only the backend can read it."""

Prepared = Callable[[], dict[str, Value]]
"""A run that is bound to its tensors and may be repeated; returns the requested outputs by name."""


class Backend(Protocol):
    """Runs the graphs of one bundle on one device. Tensors stay on the device until they are downloaded."""

    @property
    def on_host(self) -> bool:
        """True if tensors are in the host's memory, so that selecting rows of them costs one copy."""

    @property
    def recordings(self) -> int:
        """Number of step sizes (utterances, beams, frames) that may be recorded as CUDA graphs; 0 for none.

        A recording is replayed only with the tensors that it was made with.
        """

    @property
    def recording_memory(self) -> int | None:
        """Bytes that the tensors of recorded steps may take; None for no bound."""

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Value:
        """Return a new tensor on the device; its content is undefined."""

    def write(self, value: Value, array: NDArray[Any]) -> None:
        """Copy an array into a tensor of the same shape and dtype; the tensor keeps its address."""

    def upload(self, array: NDArray[Any]) -> Value:
        """Copy an array to the device."""

    def share(self, array: NDArray[Any]) -> Value:
        """Return a tensor in the memory of `array`: writing to one changes the other.

        Raises:
            EngineError: Tensors of this backend are not in the host's memory.
        """

    def download(self, value: Value) -> NDArray[Any]:
        """Copy a tensor to the host."""

    def synchronize(self) -> None:
        """Wait until all runs are finished; `run` may return earlier."""

    def dtype(self, graph: str, name: str) -> np.dtype[Any]:
        """Return the dtype of an input of `graph`; hidden states and caches are float16 or float32."""

    def prepare(
        self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str], into: Mapping[str, Value]
    ) -> Prepared:
        """Bind a run of `graph` to its tensors; the run may be repeated.

        Args:
            graph: Name of the graph.
            inputs: Tensors by name; the content of shared ones may change between runs.
            outputs: Names of the outputs that a run returns, on the device. Other outputs are discarded.
            into: Tensors by the names of the outputs that are written to them. A tensor may be an input as well if
                the graph allows it. A run may be recorded if all its outputs are here; see `recordings`.

        Raises:
            EngineError: Preparing failed; a run raises it too.
        """

    def run(self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str]) -> dict[str, Value]:
        """Run `graph` once; see `prepare`."""
