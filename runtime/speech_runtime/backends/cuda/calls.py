"""The CUDA calls of a decoding loop, through cuda-python. A failed call raises an error with CUDA's name for it."""

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from ...errors import EngineError
from ...install_hints import how_to_install
from ...system import MIB


class Device(Protocol):
    """A GPU's memory, and one stream for all work. Calls return before the work is done."""

    @property
    def stream(self) -> int:
        """Handle of the stream."""

    @property
    def compute_capability(self) -> str:
        """Compute capability of the GPU, "8.9" for example."""

    def activate(self) -> None:
        """Make this the current device of the calling thread."""

    def allocate(self, size: int) -> int:
        """Allocate `size` bytes, aligned for any dtype, and return their address."""

    def free(self, address: int) -> None:
        """Free memory; work that uses it must be done."""

    def copy_in(self, address: int, array: NDArray[Any]) -> None:
        """Copy a contiguous array to `address`; the array must live until the next `synchronize`."""

    def copy_out(self, array: NDArray[Any], address: int) -> None:
        """Copy from `address` into a contiguous array; its content is valid after the next `synchronize`."""

    def synchronize(self) -> None:
        """Wait until all work is done."""

    def record(self, work: Callable[[], None]) -> int:
        """Record what `work` puts on the stream, without executing it; return the handle of the CUDA graph."""

    def replay(self, recording: int) -> None:
        """Put a recorded CUDA graph on the stream."""

    def forget(self, recording: int) -> None:
        """Free a CUDA graph; its work must be done."""


class Cuda:
    """A GPU through cuda-python; see `Device`."""

    def __init__(self, device_id: int = 0) -> None:
        """Create a stream on the GPU with the number `device_id`.

        Raises:
            EngineError: cuda-python, the driver or the GPU is missing.
        """
        self._runtime = _import_runtime()
        self._device_id = device_id
        count = self._call("cudaGetDeviceCount")
        if device_id >= count:
            raise EngineError(f"there is no GPU {device_id}: CUDA finds {count}; check CUDA_VISIBLE_DEVICES")
        self.activate()
        self._stream = self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)

    @property
    def stream(self) -> int:
        """See `Device.stream`."""
        return int(self._stream)

    @property
    def compute_capability(self) -> str:
        """See `Device.compute_capability`."""
        names = self._runtime.cudaDeviceAttr
        attributes = (names.cudaDevAttrComputeCapabilityMajor, names.cudaDevAttrComputeCapabilityMinor)
        return ".".join(str(self._call("cudaDeviceGetAttribute", name, self._device_id)) for name in attributes)

    @property
    def name(self) -> str:
        """Name of the GPU, as NVIDIA writes it."""
        name = self._call("cudaGetDeviceProperties", self._device_id).name
        return name.decode().strip("\0") if isinstance(name, bytes) else str(name)

    @property
    def free_memory(self) -> int:
        """Bytes of the GPU's memory that no process uses."""
        self.activate()
        return int(self._call("cudaMemGetInfo"))

    def activate(self) -> None:
        """See `Device.activate`."""
        self._call("cudaSetDevice", self._device_id)

    def allocate(self, size: int) -> int:
        """See `Device.allocate`."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        """See `Device.free`."""
        self._call("cudaFree", address)

    def copy_in(self, address: int, array: NDArray[Any]) -> None:
        """See `Device.copy_in`."""
        self._copy(address, array.ctypes.data, array.nbytes, self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def copy_out(self, array: NDArray[Any], address: int) -> None:
        """See `Device.copy_out`."""
        self._copy(array.ctypes.data, address, array.nbytes, self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def synchronize(self) -> None:
        """See `Device.synchronize`."""
        self._call("cudaStreamSynchronize", self._stream)

    def record(self, work: Callable[[], None]) -> int:
        """See `Device.record`."""
        # Thread-local: other threads may allocate meanwhile, and their work is not part of the recording.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            self._runtime.cudaStreamEndCapture(self._stream)  # its own status would hide the first error
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def replay(self, recording: int) -> None:
        """See `Device.replay`."""
        self._call("cudaGraphLaunch", recording, self._stream)

    def forget(self, recording: int) -> None:
        """See `Device.forget`."""
        self._call("cudaGraphExecDestroy", recording)

    def _copy(self, to: int, source: int, size: int, kind: Any) -> None:
        self._call("cudaMemcpyAsync", to, source, size, kind, self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a CUDA function, and return its first result after the status; None if there is none.

        Raises:
            EngineError: The status is an error.
        """
        status, *values = getattr(self._runtime, name)(*arguments)
        if status != self._runtime.cudaError_t.cudaSuccess:
            text = self._runtime.cudaGetErrorString(status)[1]
            reason = text.decode() if isinstance(text, bytes) else str(status)
            if status == self._runtime.cudaError_t.cudaErrorMemoryAllocation:
                raise EngineError(
                    f"the GPU has no {arguments[0] / MIB:,.0f} MiB left ({reason}); use another one, or build engines "
                    "for smaller sizes: speech-export BUNDLE --engines --trt-batch … --trt-beams … --trt-tokens …"
                )
            raise EngineError(
                f"CUDA cannot be used: {name} failed with {reason}; check the NVIDIA driver with nvidia-smi"
            )
        return values[0] if values else None


def _import_runtime() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(
            f"cuda-python is needed to run engines ({error}): {how_to_install('tensorrt')}, "
            f"or {how_to_install('tensorrt-rtx')}"
        ) from error
