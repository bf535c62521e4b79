"""What the rest of the runtime asks of whatever runs the graphs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Value = Any
"""A tensor where the backend keeps it; on a GPU, device memory. Only its backend can look inside."""

Prepared = Callable[[], dict[str, Value]]
"""A run with all that it reads and writes, any number of times; it returns the outputs that were asked for."""


class Backend(Protocol):
    """Runs the graphs of one bundle on one device. Tensors stay on the device until they are downloaded."""

    @property
    def on_host(self) -> bool:
        """Whether tensors are in the host's memory, so that rows of them are taken at the cost of a copy."""

    @property
    def recordings(self) -> int:
        """Sizes of a step with a static cache whose runs it records, if it finds the same tensors in each; 0: none."""

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Value:
        """A tensor on the device; anything may be in it."""

    def write(self, value: Value, array: NDArray[Any]) -> None:
        """Copy an array into a tensor of the same shape and dtype, which stays where it is."""

    def upload(self, array: NDArray[Any]) -> Value:
        """Copy an array to the device."""

    def share(self, array: NDArray[Any]) -> Value:
        """A tensor that is in the memory of `array`: what is written into one is in the other.

        Raises:
            EngineError: tensors of this backend are not in the host's memory.
        """

    def download(self, value: Value) -> NDArray[Any]:
        """Copy a tensor to the host."""

    def synchronize(self) -> None:
        """Wait until all runs are done, which need not be so when `run` returns."""

    def dtype(self, graph: str, name: str) -> np.dtype[Any]:
        """Of an input of `graph`: the states between graphs are float16 in a half-precision bundle, float32 else."""

    def prepare(
        self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str], into: Mapping[str, Value]
    ) -> Prepared:
        """Bind what `graph` reads and writes, to run it any number of times.

        Args:
            graph: name in the contract.
            inputs: tensors by name; what is in shared ones may change from run to run.
            outputs: names of those that a run returns, on the device; outputs that are not named are not kept.
            into: tensors that other outputs are written to, by name; they may be inputs too where the graph says so.
                Where all outputs are among them, the run may be recorded; see `recordings`.

        Raises:
            EngineError: here or by a run: it failed.
        """

    def run(self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str]) -> dict[str, Value]:
        """Run `graph` once; see `prepare`."""
