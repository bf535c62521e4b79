"""The TensorRT backend: engines of a bundle, on one stream of one GPU."""

import threading
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...bundle.graph_io import DECODER_WITH_PAST, GRAPHS
from ...bundle.loading import Bundle
from ...bundle.manifest import ENGINES, EngineSet
from ...errors import EngineError
from ..base import Prepared
from ..cuda.calls import Cuda, Device
from ..cuda.captures import CUDA_CALLS
from ..cuda.device_memory import DevicePool, DeviceTensor
from ..cuda.recorded_sizes import recorded_sizes
from ..options import EngineOptions
from .engine_sets import choose_engines
from .graph import TensorRtGraph
from .library import Log, TensorRt, import_tensorrt
from .profiles import ProfileChoice, input_shapes, widest

_ANY_WIDTH = 0
"""Width of `encoder_hidden_states`; no profile depends on it."""


class TensorRtBackend:
    """The graphs of a bundle as TensorRT engines; see `base.Backend`.

    Runs are put on one stream, and a download waits for them. Threads may share the backend; they take turns.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: EngineOptions,
        *,
        tensorrt: TensorRt | None = None,
        device: Device | None = None,
        check_hashes: bool = True,
    ) -> None:
        """Load the engines of all three graphs.

        Args:
            bundle: Bundle with engines.
            options: Flavor of the engines, and the GPU.
            tensorrt: The library; imported if None.
            device: The GPU; the one of `options` if None.
            check_hashes: If true, compare the SHA-256 of the engines first.

        Raises:
            EngineError: A library or the GPU is missing, no engines fit them, or CUDA graphs are requested for steps
                whose shapes change.
        """
        self._sizes = recorded_sizes(bundle, options.cuda_graphs)
        self._options = options
        tensorrt = tensorrt or import_tensorrt(options.flavor)
        self._device = device or Cuda(options.device_id)
        capability = self._device.compute_capability
        engines = choose_engines(bundle, tensorrt, capability, check_hashes=check_hashes)
        self.step_tokens = widest(engines.profiles[DECODER_WITH_PAST])["tokens"].largest
        self._pool = DevicePool(self._device)
        self._lock = threading.RLock()
        self._graphs: dict[str, TensorRtGraph] = {}
        with CUDA_CALLS:
            self._load(bundle, engines, tensorrt, Log(tensorrt))

    @property
    def on_host(self) -> bool:
        """See `Backend.on_host`."""
        return False

    @property
    def recordings(self) -> int:
        """See `Backend.recordings`."""
        return self._sizes

    @property
    def recording_memory(self) -> None:
        """See `Backend.recording_memory`. The number of sizes is the only bound."""

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceTensor:
        """See `Backend.allocate`."""
        with self._lock, CUDA_CALLS:
            self._device.activate()
            return DeviceTensor(self._pool.take(prod(shape) * dtype.itemsize), shape, dtype)

    def write(self, value: DeviceTensor, array: NDArray[Any]) -> None:
        """See `Backend.write`."""
        with self._lock, CUDA_CALLS:
            self._device.activate()
            self._pool.write(value, np.ascontiguousarray(array).reshape(array.shape))

    def upload(self, array: NDArray[Any]) -> DeviceTensor:
        """See `Backend.upload`."""
        contiguous = np.ascontiguousarray(array).reshape(array.shape)
        with self._lock, CUDA_CALLS:
            self._device.activate()
            return self._pool.copy_in(contiguous)

    def share(self, array: NDArray[Any]) -> DeviceTensor:  # noqa: ARG002
        """See `Backend.share`; always refused."""
        raise EngineError("tensors of TensorRT engines are on the GPU; they cannot share the memory of an array")

    def download(self, value: DeviceTensor) -> NDArray[Any]:
        """Copy a tensor to the host, after everything that is on the stream."""
        with self._lock, CUDA_CALLS:
            self._device.activate()
            return self._pool.copy_out(value)

    def dtype(self, graph: str, name: str) -> np.dtype[Any]:
        """See `Backend.dtype`."""
        return self._graphs[graph].dtype(name)

    def synchronize(self) -> None:
        """See `Backend.synchronize`."""
        with self._lock, CUDA_CALLS:
            self._device.activate()
            self._device.synchronize()

    def prepare(
        self,
        graph: str,
        inputs: Mapping[str, DeviceTensor],
        outputs: Sequence[str],
        into: Mapping[str, DeviceTensor],
    ) -> Prepared:
        """See `Backend.prepare`. A run is only put on the stream; tensors of `into` must not be inputs."""

        def run() -> dict[str, DeviceTensor]:
            with self._lock, CUDA_CALLS:
                self._device.activate()
                return self._graphs[graph](inputs, outputs, into)

        return run

    def run(self, graph: str, inputs: Mapping[str, DeviceTensor], outputs: Sequence[str]) -> dict[str, DeviceTensor]:
        """See `Backend.run`."""
        return self.prepare(graph, inputs, outputs, {})()

    def _load(self, bundle: Bundle, engines: EngineSet, tensorrt: TensorRt, log: Log) -> None:
        for name in GRAPHS:
            shapes = input_shapes(name, bundle.manifest.encoder, bundle.manifest.decoder, _ANY_WIDTH)
            choose = ProfileChoice(name, engines, shapes, bundle.directory)
            recorded = bool(self._sizes) and name == DECODER_WITH_PAST
            graph = TensorRtGraph(name, tensorrt, self._device, self._pool, choose, log, recorded=recorded)
            path = bundle.path(ENGINES) / engines.directory / f"{name}.engine"
            graph.load(path, bundle.path(f"{name}.onnx") if engines.weights == "stripped" else None)
            self._graphs[name] = graph
        scratch_size = max(graph.scratch_size for graph in self._graphs.values())
        scratch = self._pool.take(scratch_size, exact=True)
        for graph in self._graphs.values():
            graph.use_scratch(scratch, scratch_size)
        self._device.synchronize()
