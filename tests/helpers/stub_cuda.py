"""A fake of `cuda.bindings.runtime` that notes every call. Every function in it must exist in the real package."""

from enum import Enum
from typing import Any

import pytest

runtime = pytest.importorskip("cuda.bindings.runtime")


class Status(Enum):
    cudaSuccess = 0  # noqa: N815 - CUDA's own names
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorIllegalAddress = 700  # noqa: N815


class StubRuntime:
    """A machine with two GPUs of one kind."""

    cudaError_t = Status  # noqa: N815
    cudaMemcpyKind = runtime.cudaMemcpyKind  # noqa: N815
    cudaDeviceAttr = runtime.cudaDeviceAttr  # noqa: N815
    cudaStreamCaptureMode = runtime.cudaStreamCaptureMode  # noqa: N815
    cudaStreamNonBlocking = runtime.cudaStreamNonBlocking  # noqa: N815

    def __init__(self, compute_capability: str = "8.9") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failures: dict[str, Status] = {}
        self.results: dict[str, Any] = {"cudaGetDeviceCount": 2, "cudaMalloc": 4096, "cudaStreamCreateWithFlags": 77}
        self._capability = tuple(int(number) for number in compute_capability.split("."))

    def cudaGetErrorString(self, status: Status) -> tuple[Status, bytes]:  # noqa: N802
        return Status.cudaSuccess, status.name.encode()

    def cudaDeviceGetAttribute(self, name: Any, device: int) -> tuple[Status, int]:  # noqa: N802
        major, minor = self._capability
        return Status.cudaSuccess, major if name == runtime.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor else minor

    def __getattr__(self, name: str) -> Any:
        assert hasattr(runtime, name), f"CUDA has no {name}"

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            status = self.failures.get(name, Status.cudaSuccess)
            return (status, self.results[name]) if name in self.results else (status,)

        return call
