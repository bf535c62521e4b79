"""Test the names and arguments of CUDA calls against `cuda.bindings`, and the errors where there is no GPU."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from speech_runtime import EngineError
from speech_runtime.backends.cuda.calls import Cuda
from stub_cuda import Status, StubRuntime, runtime


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> StubRuntime:
    made = StubRuntime()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", made)
    return made


def test_copies_go_through_one_stream_in_both_directions(stub: StubRuntime) -> None:
    cuda, array = Cuda(1), np.zeros(6, dtype=np.float32)
    cuda.copy_in(cuda.allocate(24), array)
    cuda.copy_out(array, 4096)
    cuda.synchronize()
    cuda.free(4096)
    kinds = runtime.cudaMemcpyKind
    assert stub.calls == [
        ("cudaGetDeviceCount",),
        ("cudaSetDevice", 1),
        ("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking),
        ("cudaMalloc", 24),
        ("cudaMemcpyAsync", 4096, array.ctypes.data, 24, kinds.cudaMemcpyHostToDevice, 77),
        ("cudaMemcpyAsync", array.ctypes.data, 4096, 24, kinds.cudaMemcpyDeviceToHost, 77),
        ("cudaStreamSynchronize", 77),
        ("cudaFree", 4096),
    ]
    assert (cuda.stream, cuda.compute_capability) == (77, "8.9")


def test_work_is_recorded_off_the_stream_and_replayed(stub: StubRuntime) -> None:
    stub.results |= {"cudaStreamEndCapture": 5, "cudaGraphInstantiate": 6}
    cuda = Cuda()
    stub.calls.clear()
    recording = cuda.record(lambda: stub.calls.append(("work",)))
    cuda.replay(recording)
    cuda.forget(recording)
    assert stub.calls == [
        ("cudaStreamBeginCapture", 77, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal),
        ("work",),
        ("cudaStreamEndCapture", 77),
        ("cudaGraphInstantiate", 5, 0),
        ("cudaGraphDestroy", 5),
        ("cudaGraphLaunch", 6, 77),
        ("cudaGraphExecDestroy", 6),
    ]


def test_work_that_cannot_be_recorded_leaves_no_stream_that_records(stub: StubRuntime) -> None:
    cuda = Cuda()

    def fails() -> None:
        raise EngineError("decoder_with_past: TensorRT refuses running it")

    with pytest.raises(EngineError, match="refuses running it"):
        cuda.record(fails)
    assert stub.calls[-1] == ("cudaStreamEndCapture", 77)


def test_name_and_free_memory(stub: StubRuntime) -> None:
    stub.results |= {"cudaGetDeviceProperties": SimpleNamespace(name=b"NVIDIA L4\0\0"), "cudaMemGetInfo": 2**34}
    cuda = Cuda(1)
    assert (cuda.name, cuda.free_memory) == ("NVIDIA L4", 2**34)


def test_a_gpu_that_is_not_there_is_named(stub: StubRuntime) -> None:
    with pytest.raises(EngineError, match="there is no GPU 2: CUDA finds 2; check CUDA_VISIBLE_DEVICES"):
        Cuda(2)


def test_errors_are_said_in_cudas_words(stub: StubRuntime) -> None:
    cuda = Cuda()
    stub.failures = {
        "cudaMalloc": Status.cudaErrorMemoryAllocation,
        "cudaStreamSynchronize": Status.cudaErrorIllegalAddress,
    }
    with pytest.raises(EngineError, match=r"the GPU has no 2,048 MiB left .*--engines --trt-batch"):
        cuda.allocate(2**31)
    with pytest.raises(
        EngineError, match="cudaStreamSynchronize failed with cudaErrorIllegalAddress; check the NVIDIA"
    ):
        cuda.synchronize()


def test_without_cuda_python_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(EngineError, match=r"needed.*'speech-export\[tensorrt\]', or pip .*\[tensorrt-rtx\]'"):
        Cuda()


@pytest.mark.skipif(runtime.cudaGetDeviceCount()[0].value == 0, reason="there is a GPU")
def test_without_a_driver_cuda_says_so() -> None:
    with pytest.raises(
        EngineError, match="CUDA cannot be used: cudaGetDeviceCount failed with .*check the NVIDIA driver"
    ):
        Cuda()
