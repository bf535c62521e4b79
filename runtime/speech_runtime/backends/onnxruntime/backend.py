"""The ONNX Runtime backend: I/O binding for every execution provider."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...bundle.graph_io import DECODER_WITH_PAST, ENCODER, GRAPHS
from ...bundle.loading import Bundle
from ...errors import EngineError, EngineMemoryError
from ...system import return_freed_memory
from ..base import Prepared
from ..cuda.captures import CUDA_CALLS
from ..cuda.driver import free_memory
from ..cuda.graphs import CudaGraphs
from ..cuda.worker import Worker
from ..engine_messages import failed_run
from ..native_calls import NATIVE_CALLS
from ..options import SessionOptions
from .graph_providers import engine_cache, sizes_to_record
from .provider_engines import record_at_end, recorded_engines
from .providers import import_onnxruntime
from .sessions import SessionLoader, is_out_of_memory, no_memory, run_options

if TYPE_CHECKING:
    import onnxruntime

    Values = Mapping[str, onnxruntime.OrtValue]

Result = TypeVar("Result")

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(bool)": np.dtype(np.bool_),
}


class OnnxRuntimeBackend:
    """The graphs of a bundle as ONNX Runtime sessions; see `base.Backend`."""

    def __init__(self, bundle: Bundle, options: SessionOptions, *, check_hashes: bool = True) -> None:
        """Load all three graphs.

        Args:
            bundle: Bundle with the graphs.
            options: Options of the sessions.
            check_hashes: If true, compare the SHA-256 of the files in the caches of optimised graphs and of engines.

        Raises:
            EngineError: ONNX Runtime or the provider is missing, or refuses an option.
            BundleError: A graph does not match the manifest.
        """
        self._runtime = import_onnxruntime(options)
        self._options = options
        self.recordings = sizes_to_record(options, bundle)
        self.recording_memory: int | None = None
        on_gpu = options.memory == "cuda"
        self._calls: AbstractContextManager[object] = CUDA_CALLS if on_gpu else nullcontext()
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        with self._calls:
            self._load(bundle, check_hashes=check_hashes)
            if self.recordings:
                self.recording_memory = int(options.cuda.cuda_graph_memory * free_memory(options.device_id))
        of_run = partial(run_options, self._runtime, options)
        self._run_options = of_run()
        self._cuda_graphs = CudaGraphs(self._sessions[DECODER_WITH_PAST], of_run) if self.recordings else None
        self._worker = Worker("recorded steps") if self.recordings else None
        if on_gpu:
            close = partial(_close, self._sessions, self._cuda_graphs)
            weakref.finalize(self, CUDA_CALLS.release, close).atexit = False
        # Read once: ONNX Runtime creates a new list of the inputs, dozens for a decoder, at every call.
        self._input_types: dict[tuple[str, str], str] = {
            (graph, node.name): node.type for graph, session in self._sessions.items() for node in session.get_inputs()
        }
        return_freed_memory()

    @property
    def on_host(self) -> bool:
        """See `Backend.on_host`."""
        return self._options.memory == "cpu"

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> onnxruntime.OrtValue:
        """See `Backend.allocate`."""
        if self.on_host:  # zeroed: NaNs in uninitialised memory would corrupt the calibration of ranges
            return self.upload(np.zeros(shape, dtype=dtype))
        memory, device_id = self._options.memory, self._options.device_id
        with self._calls:
            return self._runtime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, memory, device_id)

    def write(self, value: onnxruntime.OrtValue, array: NDArray[Any]) -> None:
        """See `Backend.write`."""
        with self._calls:
            value.update_inplace(np.ascontiguousarray(array))

    def upload(self, array: NDArray[Any]) -> onnxruntime.OrtValue:
        """See `Backend.upload`."""
        with self._calls:
            return self._runtime.OrtValue.ortvalue_from_numpy(array, self._options.memory, self._options.device_id)

    def share(self, array: NDArray[Any]) -> onnxruntime.OrtValue:
        """See `Backend.share`."""
        if self._options.memory != "cpu":
            raise EngineError(
                "this bundle keeps its cache in the host's memory, and device is "
                f"{self._options.device!r}; export it with --target {self._options.device}"
            )
        return self._runtime.OrtValue.ortvalue_from_numpy(array)  # a view of the array on the CPU

    def download(self, value: onnxruntime.OrtValue) -> NDArray[Any]:
        """See `Backend.download`."""
        with self._calls:
            array: NDArray[Any] = value.numpy()
        return array

    def synchronize(self) -> None:
        """See `Backend.synchronize`. Nothing to do: ONNX Runtime waits at the end of each run."""

    def dtype(self, graph: str, name: str) -> np.dtype[Any]:
        """See `Backend.dtype`."""
        return _DTYPES[self._input_types[graph, name]]

    def prepare(self, graph: str, inputs: Values, outputs: Sequence[str], into: Values) -> Prepared:
        """See `Backend.prepare`."""

        def explained(call: Callable[[], Result]) -> Result:
            try:
                with NATIVE_CALLS:
                    return call()
            except EngineError:
                raise
            except Exception as error:  # ONNX Runtime's errors have no common base class
                if is_out_of_memory(error):
                    raise EngineMemoryError(
                        no_memory(graph, "fewer clips at once, fewer beams or shorter audio")
                    ) from error
                shapes = {name: value.shape() for name, value in inputs.items()}
                raise EngineError(failed_run(graph, error, shapes)) from error

        return partial(explained, explained(lambda: self._prepare(graph, inputs, outputs, into)))

    def run(self, graph: str, inputs: Values, outputs: Sequence[str]) -> dict[str, onnxruntime.OrtValue]:
        """See `Backend.run`."""
        return self.prepare(graph, inputs, outputs, {})()

    def _load(self, bundle: Bundle, *, check_hashes: bool) -> None:
        loader = SessionLoader(bundle, self._options, self._runtime, check_hashes=check_hashes)
        cache = engine_cache(self._options.tensorrt, bundle, self._runtime.__version__)
        with recorded_engines(cache, check_hashes=check_hashes):
            for graph in GRAPHS:
                # The only size that is not in the manifest. The encoder is loaded first, and does not need it.
                width = self._sessions[ENCODER].get_outputs()[0].shape[-1] if self._sessions else 0
                self._sessions[graph] = loader.load(graph, width)
        record_at_end(self, self._sessions, cache)

    def _prepare(self, graph: str, inputs: Values, outputs: Sequence[str], into: Values) -> Prepared:
        steps, worker = self._cuda_graphs, self._worker
        if graph != DECODER_WITH_PAST or steps is None or worker is None:
            return partial(self._run_here, graph, self._binding(graph, inputs, outputs, into), outputs)
        if into and not outputs:
            return partial(worker, steps.prepare(inputs, into))
        binding = self._binding(graph, inputs, outputs, into)

        def run_unrecorded() -> dict[str, onnxruntime.OrtValue]:
            steps.run_unrecorded(binding)
            # Memory that the session allocates may be overwritten by the next replay, so results are copied.
            return {name: self.upload(self.download(value)) for name, value in _results(binding, outputs).items()}

        return partial(worker, run_unrecorded)

    def _run_here(self, graph: str, binding: Any, outputs: Sequence[str]) -> dict[str, onnxruntime.OrtValue]:
        with self._calls:
            self._sessions[graph].run_with_iobinding(binding, self._run_options)
        return _results(binding, outputs)

    def _binding(self, graph: str, inputs: Values, outputs: Sequence[str], into: Values) -> Any:
        with self._calls:
            binding = self._sessions[graph].io_binding()
            for name, value in inputs.items():
                binding.bind_ortvalue_input(name, value)
            for name in outputs:
                binding.bind_output(name, self._options.memory, self._options.device_id)
            for name, value in into.items():
                binding.bind_ortvalue_output(name, value)
        return binding


def _results(binding: Any, outputs: Sequence[str]) -> dict[str, onnxruntime.OrtValue]:
    # Outputs that are written to given tensors come last and are cut off.
    return dict(zip(outputs, binding.get_outputs(), strict=False)) if outputs else {}


def _close(sessions: dict[str, Any], steps: CudaGraphs | None) -> None:
    sessions.clear()
    if steps is not None:
        steps.close()
