"""One graph as a TensorRT engine: an execution context for each profile, the tensors of a call, and CUDA graphs."""

import mmap
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EngineError
from ..cuda.calls import Device
from ..cuda.captures import CUDA_CALLS
from ..cuda.device_memory import Buffer, DevicePool, DeviceTensor
from .library import Log, TensorRt
from .profiles import ProfileChoice


class TensorRtGraph:
    """A graph on a device. Two threads must not call it at the same time: a context has one set of bindings."""

    def __init__(
        self,
        name: str,
        tensorrt: TensorRt,
        device: Device,
        pool: DevicePool,
        choose: ProfileChoice,
        log: Log,
        *,
        recorded: bool = False,
    ) -> None:
        """Create the graph without an engine; call `load` next.

        Args:
            name: Name of the graph.
            tensorrt: The library.
            device: Device that runs the graph.
            pool: Memory for the outputs.
            choose: Function that chooses the profile of a call.
            log: Log of the library.
            recorded: If true, record runs whose outputs are all given as CUDA graphs. TensorRT-RTX does so by itself
                once its kernels are compiled; for TensorRT the stream is recorded here.
        """
        self._name = name
        self._trt = tensorrt.module
        self._device = device
        self._pool = pool
        self._choose = choose
        self._log = log
        self._rtx_records = recorded and tensorrt.flavor == "tensorrt_rtx"
        self._recorded = _RecordedRuns(device) if recorded and not self._rtx_records else None
        self._unread: dict[str, Buffer] = {}
        self._contexts: list[Any] = []
        self._capacities: dict[str, int] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}

    def load(self, engine: Path, weights: Path | None) -> None:
        """Read the serialised `engine`. An engine without weights takes them from the ONNX file `weights`.

        Raises:
            EngineError: TensorRT refuses the engine.
        """
        self._runtime = self._trt.Runtime(self._log.sink)
        with engine.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise EngineError(f"{engine} cannot be loaded: {self._log.last_error}")
        if weights is not None:
            self._refit(weights)
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        modes, inputs = {name: self._engine.get_tensor_mode(name) for name in names}, self._trt.TensorIOMode.INPUT
        self._inputs = [name for name in names if modes[name] == inputs]
        self._outputs = [name for name in names if modes[name] != inputs]
        self._dtypes = {name: np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))) for name in names}
        for profile in range(self._engine.num_optimization_profiles):
            context = self._context()
            if context is None:
                raise EngineError(f"{self._name} gets no execution context: {self._log.last_error}")
            self._checked(context.set_optimization_profile_async(profile, self._device.stream), "choosing a profile")
            self._contexts.append(context)
        self._measure_outputs()

    def _context(self) -> Any:
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self._rtx_records:
            return self._engine.create_execution_context(strategy)
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(config)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of an input or output."""
        return self._dtypes[name]

    @property
    def scratch_size(self) -> int:
        """Bytes of activations in the largest profile."""
        profiles = range(self._engine.num_optimization_profiles)
        return max(int(self._engine.get_device_memory_size_for_profile_v2(profile)) for profile in profiles)

    def use_scratch(self, scratch: Buffer, size: int) -> None:
        """Keep activations in the `size` bytes of `scratch`; graphs share them, since they run one after the other."""
        self._scratch = scratch
        for context in self._contexts:
            context.set_device_memory(scratch.address, size)

    def __call__(
        self, inputs: Mapping[str, DeviceTensor], outputs: Sequence[str], into: Mapping[str, DeviceTensor]
    ) -> dict[str, DeviceTensor]:
        """Put a run on the stream.

        Returns:
            The tensors of `outputs`, which hold their values once the run is done; likewise those of `into`.

        Raises:
            EngineError: No profile holds the inputs, an input has another dtype, or TensorRT refuses the run.
        """
        recorded = None if outputs or not into else self._recorded
        tensors = [*inputs.values(), *into.values()]
        if recorded is not None and recorded.replay(tensors):
            return {}
        context = self._contexts[self._choose({name: inputs[name].shape for name in self._inputs})]
        for name in self._inputs:
            tensor = inputs[name]
            if tensor.size and tensor.dtype != self._dtypes[name]:
                raise EngineError(f"{name} of {self._name} is {tensor.dtype}, its engine takes {self._dtypes[name]}")
            self._checked(context.set_input_shape(name, tensor.shape), f"the shape {list(tensor.shape)} of {name}")
            self._checked(context.set_tensor_address(name, tensor.buffer.address), f"the address of {name}")
        # TensorRT writes all outputs, also those that nobody requested. Their buffers are free again right away, unless
        # a recording keeps writing to them.
        given = {name: tensor.buffer for name, tensor in into.items()}
        if recorded is not None:
            given |= {name: self._unread_buffer(name) for name in self._outputs if name not in into}
        results = {name: self._output(context, name, given.get(name)) for name in self._outputs}

        def run() -> None:
            self._checked(context.execute_async_v3(self._device.stream), "running it")

        run()
        if recorded is not None:
            recorded.record(tensors, list(results.values()), run)
        return {name: results[name] for name in outputs}

    def _output(self, context: Any, name: str, given: Buffer | None) -> DeviceTensor:
        shape = tuple(context.get_tensor_shape(name))
        buffer = given if given is not None else self._pool.take(self._capacities[name], exact=True)
        tensor = DeviceTensor(buffer, shape, self._dtypes[name])
        self._checked(context.set_tensor_address(name, tensor.buffer.address), f"the address of {name}")
        return tensor

    def _unread_buffer(self, name: str) -> Buffer:
        """Return the buffer that all recordings write an output to that nobody requested."""
        if name not in self._unread:
            self._unread[name] = self._pool.take(self._capacities[name], exact=True)
        return self._unread[name]

    def _measure_outputs(self) -> None:
        """Let TensorRT compute the bytes of each output at the largest sizes of all profiles."""
        for profile, context in enumerate(self._contexts):
            for name in self._inputs:
                largest = self._engine.get_tensor_profile_shape(name, profile)[2]
                self._checked(context.set_input_shape(name, tuple(largest)), f"the largest shape of {name}")
            for name in self._outputs:
                size = prod(tuple(context.get_tensor_shape(name))) * self._dtypes[name].itemsize
                self._capacities[name] = max(size, self._capacities.get(name, 0))

    def _refit(self, weights: Path) -> None:
        refitter = self._trt.Refitter(self._engine, self._log.sink)
        parser = self._trt.OnnxParserRefitter(refitter, self._log.sink)
        if not parser.refit_from_file(str(weights)) or not refitter.refit_cuda_engine():
            raise EngineError(f"{self._name}: TensorRT refuses the weights of {weights}: {self._log.last_error}")

    def _checked(self, done: bool, what: str) -> None:
        if not done:
            raise EngineError(f"{self._name}: TensorRT refuses {what}: {self._log.last_error}")


@dataclass(frozen=True)
class _Recording:
    """Handle of a CUDA graph, and its tensors: while they are kept, no others get their addresses."""

    handle: int
    tensors: tuple[DeviceTensor, ...]


class _RecordedRuns:
    """Recordings of one graph on one device, one for each set of tensors.

    The device must do nothing else while a run is recorded.
    """

    def __init__(self, device: Device) -> None:
        """Begin without recordings."""
        self._device = device
        self._known: dict[tuple[int, ...], _Recording] = {}
        self._handles: list[int] = []
        weakref.finalize(self, CUDA_CALLS.release, partial(_forget, device, self._handles)).atexit = False

    def replay(self, tensors: Sequence[DeviceTensor]) -> bool:
        """Put the run that was recorded with `tensors` on the stream; return false if there is none."""
        recording = self._known.get(_key(tensors))
        if recording is None:
            return False
        self._device.replay(recording.handle)
        return True

    def record(self, tensors: Sequence[DeviceTensor], others: Sequence[DeviceTensor], run: Callable[[], None]) -> None:
        """Record `run` without executing it, for the next call with `tensors`.

        Args:
            tensors: Inputs and requested outputs.
            others: Other tensors that the run writes.
            run: Function that puts the run on the stream. It must have run once, as TensorRT requires after a change of
                shapes.
        """
        handle = self._device.record(run)
        self._handles.append(handle)
        self._known[_key(tensors)] = _Recording(handle, (*tensors, *others))


def _key(tensors: Sequence[DeviceTensor]) -> tuple[int, ...]:
    return tuple(map(id, tensors))


def _forget(device: Device, handles: list[int]) -> None:
    if handles:
        device.synchronize()
    for handle in handles:
        device.forget(handle)
