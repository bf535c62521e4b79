"""The ONNX Runtime backend: I/O binding for every execution provider."""

from __future__ import annotations

import threading
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
from ..cuda.graphs import CudaGraphs
from ..engine_messages import failed_run
from ..native_calls import NATIVE_CALLS
from ..options import SessionOptions
from .graph_providers import engine_cache
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
        loader = SessionLoader(bundle, options, self._runtime, check_hashes=check_hashes)
        cache = engine_cache(options.tensorrt, bundle, self._runtime.__version__)
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        with recorded_engines(cache, check_hashes=check_hashes):
            for graph in GRAPHS:
                # The only size that is not in the manifest. The encoder is loaded first, and does not need it.
                width = self._sessions[ENCODER].get_outputs()[0].shape[-1] if self._sessions else 0
                self._sessions[graph] = loader.load(graph, width)
        record_at_end(self, self._sessions, cache)
        recorded = self._sessions[DECODER_WITH_PAST] if options.cuda.cuda_graphs else None
        of_run = partial(run_options, self._runtime, options)
        self._run_options = of_run()
        self._cuda_graphs = None if recorded is None else CudaGraphs(recorded, of_run)
        # While ONNX Runtime records, no other thread may call CUDA.
        self._turn: AbstractContextManager[object] = nullcontext() if recorded is None else threading.RLock()
        # Read once: ONNX Runtime creates a new list of the inputs, dozens for a decoder, at every call.
        self._input_types: dict[tuple[str, str], str] = {
            (graph, node.name): node.type for graph, session in self._sessions.items() for node in session.get_inputs()
        }
        return_freed_memory()

    @property
    def on_host(self) -> bool:
        """See `Backend.on_host`."""
        return self._options.memory == "cpu"

    @property
    def recordings(self) -> int:
        """See `Backend.recordings`."""
        return self._options.cuda.cuda_graphs

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> onnxruntime.OrtValue:
        """See `Backend.allocate`."""
        if self.on_host:  # zeroed: NaNs in uninitialised memory would corrupt the calibration of ranges
            return self.upload(np.zeros(shape, dtype=dtype))
        memory, device_id = self._options.memory, self._options.device_id
        with self._turn:
            return self._runtime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, memory, device_id)

    def write(self, value: onnxruntime.OrtValue, array: NDArray[Any]) -> None:
        """See `Backend.write`."""
        with self._turn:
            value.update_inplace(np.ascontiguousarray(array))

    def upload(self, array: NDArray[Any]) -> onnxruntime.OrtValue:
        """See `Backend.upload`."""
        with self._turn:
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
        with self._turn:
            array: NDArray[Any] = value.numpy()
        return array

    def synchronize(self) -> None:
        """See `Backend.synchronize`. Nothing to do: ONNX Runtime waits at the end of each run."""

    def dtype(self, graph: str, name: str) -> np.dtype[Any]:
        """See `Backend.dtype`."""
        return _DTYPES[self._input_types[graph, name]]

    def prepare(self, graph: str, inputs: Values, outputs: Sequence[str], into: Values) -> Prepared:
        """See `Backend.prepare`."""

        def in_turn(call: Callable[[], Result]) -> Result:
            try:
                with NATIVE_CALLS, self._turn:
                    return call()
            except Exception as error:  # ONNX Runtime's errors have no common base class
                if is_out_of_memory(error):
                    raise EngineMemoryError(
                        no_memory(graph, "fewer clips at once, fewer beams or shorter audio")
                    ) from error
                shapes = {name: value.shape() for name, value in inputs.items()}
                raise EngineError(failed_run(graph, error, shapes)) from error

        return partial(in_turn, in_turn(lambda: self._prepare(graph, inputs, outputs, into)))

    def run(self, graph: str, inputs: Values, outputs: Sequence[str]) -> dict[str, onnxruntime.OrtValue]:
        """See `Backend.run`."""
        return self.prepare(graph, inputs, outputs, {})()

    def _prepare(self, graph: str, inputs: Values, outputs: Sequence[str], into: Values) -> Prepared:
        recorded = self._cuda_graphs if graph == DECODER_WITH_PAST else None
        if recorded is not None and into and not outputs:
            return partial(recorded.run, inputs, into)
        session = self._sessions[graph]
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, self._options.memory, self._options.device_id)
        for name, value in into.items():
            binding.bind_ortvalue_output(name, value)

        def run() -> dict[str, onnxruntime.OrtValue]:
            session.run_with_iobinding(binding, self._run_options)
            # Outputs in `into` come last and are cut off.
            return dict(zip(outputs, binding.get_outputs(), strict=False)) if outputs else {}

        def run_unrecorded_copy() -> dict[str, onnxruntime.OrtValue]:
            assert recorded is not None  # noqa: S101 - chosen by it
            recorded.run_unrecorded(binding)
            # Memory that the session allocates may be overwritten by the next replay, so results are copied.
            found = zip(outputs, binding.get_outputs(), strict=False)
            return {name: self.upload(self.download(value)) for name, value in found}

        return run if recorded is None else run_unrecorded_copy
