"""A GPU that records steps, simulated on the CPU: replays are blind and belong to a thread, and captures run alone.

ONNX Runtime does so with CUDA graphs. A call that breaks these rules fails.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from conftest import ONE_THREAD
from speech_runtime.backends.cuda.captures import CUDA_CALLS
from speech_runtime.backends.cuda.graphs import CudaGraphs
from speech_runtime.backends.cuda.worker import Worker
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.backends.onnxruntime.sessions import run_options
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST
from speech_runtime.bundle.loading import Bundle

NOT_RECORDED = "-1"


class Gpu:
    """What all sessions of a process share: captures run alone."""

    def __init__(self) -> None:
        self.calls = 0
        self.captures = 0
        self._lock = threading.Lock()

    @contextmanager
    def call(self, captures: int = 0) -> Iterator[None]:
        with self._lock:
            assert not self.captures, "CUDA was called during a capture"
            assert not (captures and self.calls), "a capture began during a call of CUDA"
            self.calls, self.captures = self.calls + 1, self.captures + captures
        try:
            yield
        finally:
            with self._lock:
                self.calls, self.captures = self.calls - 1, self.captures - captures


GPU = Gpu()


class RecordingSession:
    """A session that replays the first run recorded under a number, whatever inputs come with that number later.

    Attributes:
        numbers: Number of each run.
        recorded: Bindings that were recorded, by their numbers.
        threads: Threads that recorded.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self.recorded: dict[str, Any] = {}
        self.numbers: list[str] = []
        self.threads: set[int] = set()
        self._running = threading.Lock()

    def io_binding(self) -> Any:
        return self.session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        assert self._running.acquire(blocking=False), "two runs at a time"
        try:
            number = options.get_run_config_entry("gpu_graph_id")
            self.numbers.append(number)
            with GPU.call(captures=number != NOT_RECORDED and number not in self.recorded):
                self._run(number, binding)
        finally:
            self._running.release()

    def _run(self, number: str, binding: Any) -> None:
        assert number != "0", "0 is ONNX Runtime's own"
        if number == NOT_RECORDED:
            self.session.run_with_iobinding(binding)
            return
        self.threads.add(threading.get_ident())
        assert len(self.threads) == 1, "recordings are kept for each thread"
        if number not in self.recorded:
            self.capture(number, binding)
        self.session.run_with_iobinding(self.recorded[number])

    def capture(self, number: str, binding: Any) -> None:
        for _ in range(2):  # two runs before the capture, which executes nothing
            self.session.run_with_iobinding(binding)
        self.recorded[number] = binding


class _CheckedCalls:
    """The calls of a backend, and the GPU that takes none of them during a capture."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __enter__(self) -> None:
        CUDA_CALLS.__enter__()
        self._local.call = GPU.call()
        self._local.call.__enter__()

    def __exit__(self, *_: object) -> None:
        self._local.call.__exit__(None, None, None)
        CUDA_CALLS.__exit__()


class OnDevice(OnnxRuntimeBackend):
    """ONNX Runtime on the CPU that claims to be on a GPU with CUDA graphs; new memory is not zeroed."""

    on_host = False

    def __init__(self, bundle: Bundle, recordings: int = 2, recording_memory: int | None = None) -> None:
        super().__init__(bundle, ONE_THREAD)
        self.recordings, self.recording_memory = recordings, recording_memory
        self._calls = _CheckedCalls()
        self.session = RecordingSession(self._sessions[DECODER_WITH_PAST])
        self._cuda_graphs = CudaGraphs(self.session, partial(run_options, onnxruntime, ONE_THREAD))
        self._worker = Worker("recorded steps")

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return self.upload(np.full(shape, np.nan if dtype.kind == "f" else -1, dtype=dtype))

    def download(self, value: Any) -> NDArray[Any]:
        return super().download(value).copy()  # a copy, as from a GPU, since the tensor is overwritten
