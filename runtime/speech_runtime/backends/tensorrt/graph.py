"""One graph as a TensorRT engine: its contexts, one for each profile, and the binding of a call."""

import mmap
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EngineError
from ..cuda.calls import Device
from ..cuda.device_memory import Buffer, DevicePool, DeviceTensor
from .library import Log, TensorRt
from .profile_choice import ProfileChoice
from .recorded_runs import RecordedRuns


class TensorRtGraph:
    """A graph that runs on a device. Not to be called by two threads at a time: a context has one set of bindings."""

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
        """Make a graph of nothing; `load` comes next.

        Args:
            name: of the graph.
            tensorrt: the library.
            device: that it runs on.
            pool: where its outputs are kept.
            choose: the profile of a call.
            log: of the library.
            recorded: make CUDA graphs of runs whose tensors are all given: TensorRT-RTX does it by itself, once it has
                compiled its kernels; TensorRT is recorded off the stream.
        """
        self._name = name
        self._trt = tensorrt.module
        self._device = device
        self._pool = pool
        self._choose = choose
        self._log = log
        self._by_itself = recorded and tensorrt.flavor == "tensorrt_rtx"
        self._recorded = RecordedRuns(device) if recorded and not self._by_itself else None
        self._unread: dict[str, Buffer] = {}
        self._contexts: list[Any] = []
        self._capacities: dict[str, int] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}

    def load(self, engine: Path, weights: Path | None) -> None:
        """Read the serialised `engine`; one without weights takes them from the ONNX file `weights`.

        Raises:
            EngineError: TensorRT refuses it.
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
        if not self._by_itself:
            return self._engine.create_execution_context(strategy)
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(config)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Of an input or output."""
        return self._dtypes[name]

    @property
    def scratch_size(self) -> int:
        """Bytes of activations of the largest profile."""
        profiles = range(self._engine.num_optimization_profiles)
        return max(int(self._engine.get_device_memory_size_for_profile_v2(profile)) for profile in profiles)

    def use_scratch(self, scratch: Buffer, size: int) -> None:
        """Keep activations in `scratch`, `size` bytes that all graphs share, since they run one after the other."""
        self._scratch = scratch
        for context in self._contexts:
            context.set_device_memory(scratch.address, size)

    def __call__(
        self, inputs: Mapping[str, DeviceTensor], outputs: Sequence[str], into: Mapping[str, DeviceTensor]
    ) -> dict[str, DeviceTensor]:
        """Put a run on the stream, and return its `outputs`, which will be there when it is done, as others `into`.

        Raises:
            EngineError: the inputs fit into no profile, have another dtype, or TensorRT refuses.
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
        # TensorRT writes all outputs, those that nobody asked for too; their buffers are free again at once, unless a
        # recording goes on writing there.
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
        """Where all recordings write an output that nobody asked for."""
        if name not in self._unread:
            self._unread[name] = self._pool.take(self._capacities[name], exact=True)
        return self._unread[name]

    def _measure_outputs(self) -> None:
        """Bytes of each output at the largest sizes of any profile, as TensorRT itself works them out."""
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
