"""A fake GPU in host memory that checks every call, and a fake TensorRT whose engines run in ONNX Runtime on the CPU.

Work runs only when the stream is synchronised, as late as on a real GPU, so that memory that is freed, collected or
overwritten too early is noticed. New memory is not zeroed. A call that breaks its contract fails an assertion.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from speech_runtime.backends.tensorrt.library import TensorRt
from speech_runtime.backends.tensorrt.profiles import input_shapes, shape_ranges
from speech_runtime.bundle.graph_io import DECODER_INIT
from speech_runtime.bundle.loading import Bundle
from speech_runtime.bundle.manifest import EngineSet

Shape = tuple[int, ...]

STREAM = 77
GARBAGE = 0xFF
"""Value of every byte of new memory: it makes floats NaN and integers -1."""

_ALIGNMENT = 256
_CPU = ["CPUExecutionProvider"]


class FakeDevice:
    """A fake GPU; see `backends.cuda.calls.Device`."""

    stream = STREAM
    compute_capability = "8.9"

    def __init__(self) -> None:
        self.blocks: dict[int, NDArray[np.uint8]] = {}
        self.queue: list[Callable[[], None]] = []
        self.allocations: list[int] = []
        self.copied_in = self.copied_out = 0
        self.recordings: dict[int, list[Callable[[], None]]] = {}
        self.recording = False
        self.replays = self._next_recording = 0
        self.active = 0
        self._next = 4096

    def activate(self) -> None:
        self.active += 1

    def allocate(self, size: int) -> int:
        assert size > 0
        assert not self.recording, "memory was allocated while the stream is recorded"
        address, self._next = self._next, self._next + (size + 2 * _ALIGNMENT) // _ALIGNMENT * _ALIGNMENT
        self.blocks[address] = np.full(size, GARBAGE, dtype=np.uint8)
        self.allocations.append(size)
        return address

    def free(self, address: int) -> None:
        assert not self.queue, "memory was freed while work is on the stream"
        del self.blocks[address]

    def copy_in(self, address: int, array: NDArray[Any]) -> None:
        self._check(address, array)
        source, size = weakref.ref(array), array.nbytes
        self.copied_in += size

        def copy() -> None:
            held = source()
            assert held is not None, "the array was collected before it was copied"
            self.blocks[address][:size] = np.frombuffer(held.tobytes(), dtype=np.uint8)

        self.queue.append(copy)

    def copy_out(self, array: NDArray[Any], address: int) -> None:
        self._check(address, array)
        target = weakref.ref(array)
        self.copied_out += array.nbytes

        def copy() -> None:
            held = target()
            assert held is not None, "the array was collected before it was filled"
            held[...] = self.read(address, held.shape, held.dtype)

        self.queue.append(copy)

    def record(self, work: Callable[[], None]) -> int:
        before, self.queue, self.recording = self.queue, [], True
        try:
            work()
        finally:
            recorded, self.queue, self.recording = self.queue, before, False
        assert recorded, "nothing was recorded"
        self._next_recording += 1
        self.recordings[self._next_recording] = recorded
        return self._next_recording

    def replay(self, recording: int) -> None:
        self.queue += self.recordings[recording]
        self.replays += 1

    def forget(self, recording: int) -> None:
        assert not self.queue, "a recording was freed while work is on the stream"
        del self.recordings[recording]

    def synchronize(self) -> None:
        assert not self.recording, "the stream was synchronised while it is recorded"
        work, self.queue = self.queue, []
        for task in work:
            task()

    def read(self, address: int, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the content of the memory at `address`."""
        size = int(np.prod(shape)) * dtype.itemsize
        assert address in self.blocks, "this memory was freed, or never allocated"
        assert size <= self.blocks[address].size, "the tensor is larger than its memory"
        return self.blocks[address][:size].view(dtype).reshape(shape).copy()

    def write(self, address: int, array: NDArray[Any]) -> None:
        """Copy `array` to `address`, without waiting for the stream."""
        assert array.nbytes <= self.blocks[address].size, "the tensor is larger than its memory"
        self.blocks[address][: array.nbytes] = np.frombuffer(array.tobytes(), dtype=np.uint8)

    def _check(self, address: int, array: NDArray[Any]) -> None:
        assert not self.recording, "a copy from or to the host was recorded"
        assert array.flags["C_CONTIGUOUS"]
        assert 0 < array.nbytes <= self.blocks[address].size


@dataclass
class FakeGraph:
    """The session behind an engine, and for each profile the ranges of the shapes of each input."""

    name: str
    session: Any
    ranges: list[dict[str, tuple[Shape, Shape, Shape]]]
    dtypes: dict[str, np.dtype[Any]]
    weights: Path | None
    shapes: dict[tuple[tuple[str, Shape], ...], dict[str, Shape]] = field(default_factory=dict)

    def output_shapes(self, inputs: dict[str, Shape]) -> dict[str, Shape]:
        """Return the shapes of the outputs, found with a run on zeros."""
        key = tuple(sorted(inputs.items()))
        if key not in self.shapes:
            zeros = {name: np.zeros(shape, dtype=self.dtypes[name]) for name, shape in inputs.items()}
            names = [output.name for output in self.session.get_outputs()]
            found = self.session.run(names, zeros)
            self.shapes[key] = {name: array.shape for name, array in zip(names, found, strict=True)}
        return self.shapes[key]


class FakeContext:
    """A fake execution context; see TensorRT's `IExecutionContext`."""

    def __init__(self, library: "FakeTensorRt", engine: "FakeEngine") -> None:
        self._library, self._engine, self._graph = library, engine, engine.graph
        self._profile: int | None = None
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._scratch: tuple[int, int] | None = None

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream == STREAM
        self._profile = profile
        return 0 <= profile < len(self._graph.ranges)

    def set_device_memory(self, memory: int, size: int) -> None:
        assert self._profile is not None, "a profile must be chosen before its memory"
        assert memory % _ALIGNMENT == 0
        assert size >= self._engine.get_device_memory_size_for_profile_v2(self._profile)
        assert self._library.device.blocks[memory].size >= size
        self._scratch = memory, size

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        assert self._profile is not None, "a profile must be chosen before shapes"
        least, _, most = self._graph.ranges[self._profile][name]
        fits = len(shape) == len(least) and all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))
        if not fits:
            self._library.log(f"{name}: {shape} is not within {least} and {most}")
        self._shapes[name] = tuple(shape)
        return fits

    def get_tensor_shape(self, name: str) -> Shape:
        assert set(self._shapes) == set(self._graph.ranges[0]), "the shapes of all inputs must be set first"
        return self._graph.output_shapes(self._shapes)[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % _ALIGNMENT == 0
        assert name in self._graph.dtypes
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        device, graph = self._library.device, self._graph
        assert stream == STREAM
        assert self._scratch is not None, "there is no memory for activations"
        assert set(self._addresses) == set(graph.dtypes), "every input and every output needs an address"
        assert graph.weights is None or graph.weights in self._library.refitted, "an engine without weights ran"
        shapes = self._shapes | graph.output_shapes(self._shapes)
        addresses = dict(self._addresses)
        for name, shape in shapes.items():
            device.read(addresses[name], shape, graph.dtypes[name])  # checks that it is allocated and large enough
        outputs = [output.name for output in graph.session.get_outputs()]
        written = [addresses[name] for name in outputs]
        read = {addresses[name] for name in self._shapes}
        scratch, _ = self._scratch
        assert len({*written, scratch}) == len(written) + 1, "two outputs share memory"
        assert not read & set(written), "an output is written over an input"
        inputs = {name: (addresses[name], shape) for name, shape in self._shapes.items()}

        def run() -> None:
            given = {name: device.read(*where, graph.dtypes[name]) for name, where in inputs.items()}
            for address, array in zip(written, graph.session.run(outputs, given), strict=True):
                device.write(address, array)
            device.blocks[scratch][:] = GARBAGE

        device.queue.append(run)
        self._library.runs.append((graph.name, self._profile, dict(self._shapes), addresses))
        return True


class FakeEngine:
    """A fake deserialised engine; see TensorRT's `ICudaEngine`."""

    def __init__(self, library: "FakeTensorRt", graph: FakeGraph) -> None:
        self._library, self.graph = library, graph
        self._names = list(graph.dtypes)
        self.num_io_tensors = len(self._names)
        self.num_optimization_profiles = len(graph.ranges)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.graph.ranges[0] else "output"

    def get_tensor_dtype(self, name: str) -> Any:
        return self.graph.dtypes[name]

    def get_tensor_profile_shape(self, name: str, profile: int) -> Sequence[Shape]:
        return self.graph.ranges[profile][name]

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return 1000 * (profile + 1)

    def create_runtime_config(self) -> SimpleNamespace:
        config = SimpleNamespace(strategy=None, cuda_graph_strategy="disabled")
        config.set_execution_context_allocation_strategy = partial(setattr, config, "strategy")
        return config

    def create_execution_context(self, strategy: Any) -> FakeContext:
        if isinstance(strategy, SimpleNamespace):
            self._library.graph_strategies[self.graph.name] = strategy.cuda_graph_strategy
            strategy = strategy.strategy
        assert strategy == "user managed"
        return FakeContext(self._library, self)


class FakeTensorRt:
    """A fake of TensorRT's package, for the engine files of `bundle`, which contain only the names of their graphs."""

    __version__ = "1.7.1"
    ILogger = SimpleNamespace
    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph")

    def __init__(self, bundle: Bundle, engines: EngineSet, device: FakeDevice) -> None:
        self.device = device
        self.runs: list[tuple[str, int | None, dict[str, Shape], dict[str, int]]] = []
        self.refitted: list[Path] = []
        self.graph_strategies: dict[str, str] = {}
        self.refuses: str | None = None
        self._bundle, self._engines = bundle, engines
        self._sink: Any = None
        module = self

        class Logger:
            ERROR = 1

        self.ILogger = Logger  # type: ignore[assignment]

        class Runtime:
            def __init__(self, sink: Any) -> None:
                module._sink = sink

            def deserialize_cuda_engine(self, content: Any) -> FakeEngine | None:
                return module.deserialize(bytes(content).decode())

        self.Runtime = Runtime

        class Refitter:
            def __init__(self, engine: FakeEngine, sink: Any) -> None:
                self.given: list[Path] = []

            def refit_cuda_engine(self) -> bool:
                module.refitted += self.given
                return bool(self.given)

        class OnnxParserRefitter:
            def __init__(self, refitter: Refitter, sink: Any) -> None:
                self._refitter = refitter

            def refit_from_file(self, path: str) -> bool:
                self._refitter.given.append(Path(path).resolve())
                return module.refuses != "weights"

        self.Refitter, self.OnnxParserRefitter = Refitter, OnnxParserRefitter

    @staticmethod
    def nptype(dtype: np.dtype[Any]) -> type:
        return dtype.type

    @property
    def library(self) -> TensorRt:
        return TensorRt(self._engines.flavor, self)

    def log(self, message: str) -> None:
        self._sink.log(1, message)

    def deserialize(self, content: str) -> FakeEngine | None:
        if self.refuses == "engine":
            self.log("the plan is of another release")
            return None
        name = content.split()[-1]
        manifest, path = self._bundle.manifest, self._bundle.path(f"{name}.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=_CPU)
        width = session.get_inputs()[0].shape[-1] if name == DECODER_INIT else 0
        shapes = input_shapes(name, manifest.encoder, manifest.decoder, width)
        ranges = [
            {tensor: shape_ranges(shape, profile) for tensor, shape in shapes.items()}
            for profile in self._engines.profiles[name]
        ]
        kinds: dict[str, np.dtype[Any]] = {
            "tensor(float)": np.dtype(np.float32),
            "tensor(float16)": np.dtype(np.float16),
            "tensor(int64)": np.dtype(np.int64),
        }
        dtypes = {node.name: kinds[node.type] for node in (*session.get_inputs(), *session.get_outputs())}
        weights = path.resolve() if self._engines.weights == "stripped" else None
        return FakeEngine(self, FakeGraph(name, session, ranges, dtypes, weights))
