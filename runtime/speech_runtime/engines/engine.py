"""What the rest of the runtime asks of whatever runs the graphs."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Value = Any
"""A tensor where the engine keeps it; on a GPU, device memory. Only its engine can look inside."""


class Engine(Protocol):
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
            EngineError: tensors of this engine are not in the host's memory.
        """

    def download(self, value: Value) -> NDArray[Any]:
        """Copy a tensor to the host."""

    def synchronize(self) -> None:
        """Wait until all runs are done, which need not be so when `run` returns."""

    def dtype(self, graph: str, name: str) -> np.dtype[Any]:
        """Of an input of `graph`: the states between graphs are float16 in a half-precision bundle, float32 else."""

    def run(
        self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str], into: Mapping[str, Value] | None = None
    ) -> dict[str, Value]:
        """Run `graph` and return the named `outputs`, on the device; outputs not named are not kept.

        Args:
            graph: name in the contract.
            inputs: tensors by name.
            outputs: names.
            into: tensors that other outputs are written to, by name; they may be inputs too where the graph says so.
                Where all outputs are among them, the run may be recorded; see `recordings`.

        Raises:
            EngineError: the run failed.
        """
