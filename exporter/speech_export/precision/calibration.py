"""Records the inputs of each graph while a bundle transcribes given audio."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speech_runtime import GenerationConfig, SessionOptions
from speech_runtime.backends.base import Backend, Prepared, Value
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.loading import Bundle
from speech_runtime.bundle.manifest import GENERATION_CONFIG
from speech_runtime.generation.generator import SpeechGenerator

_NEW_TOKENS = 64

ModelInput = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Padded batch, float32 [batch, samples] or [batch, time, features], and its mask int64 [batch, samples or time]."""
Feed = dict[str, NDArray[Any]]


class _Recorder:
    """A backend that records the inputs of its graphs."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.feeds: dict[str, list[Feed]] = {graph: [] for graph in GRAPHS}

    @property
    def on_host(self) -> bool:
        return self._backend.on_host

    @property
    def recordings(self) -> int:
        return self._backend.recordings

    def upload(self, array: NDArray[Any]) -> Value:
        return self._backend.upload(array)

    def download(self, value: Value) -> NDArray[Any]:
        return self._backend.download(value)

    def dtype(self, graph: str, name: str) -> np.dtype[Any]:
        return self._backend.dtype(graph, name)

    def synchronize(self) -> None:
        self._backend.synchronize()

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Value:
        return self._backend.allocate(shape, dtype)

    def write(self, value: Value, array: NDArray[Any]) -> None:
        self._backend.write(value, array)

    def share(self, array: NDArray[Any]) -> Value:
        return self._backend.share(array)

    def prepare(
        self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str], into: Mapping[str, Value]
    ) -> Prepared:
        prepared = self._backend.prepare(graph, inputs, outputs, into)

        def run() -> dict[str, Value]:
            # Copied, because a download from the CPU shares the memory of the tensor, which does not outlive the step.
            self.feeds[graph].append({name: self.download(value).copy() for name, value in inputs.items()})
            return prepared()

        return run

    def run(self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str]) -> dict[str, Value]:
        return self.prepare(graph, inputs, outputs, {})()


def record(bundle: Bundle, calibration: Iterable[ModelInput]) -> Iterator[dict[str, list[Feed]]]:
    """Let `bundle` transcribe `calibration`, and yield the inputs of each graph for each batch, one entry for each run.

    The decoder takes all tokens of the result at once, with the start token, after an empty past. So one run computes
    all numbers that it would compute token by token.
    """
    backend = OnnxRuntimeBackend(bundle, SessionOptions())
    config = GenerationConfig.from_file(bundle.path(GENERATION_CONFIG))
    plain = SpeechGenerator(backend, bundle.manifest, config, None)
    new_tokens = min(_NEW_TOKENS, (bundle.manifest.decoder.longest or sys.maxsize) - 1)
    for inputs, mask in calibration:
        tokens = plain.generate(inputs, mask, num_return_sequences=1, max_new_tokens=new_tokens)
        recorder = _Recorder(backend)
        recorded = SpeechGenerator(recorder, bundle.manifest, config, None)
        recorded.forward(inputs, mask, decoder_input_ids=tokens)
        yield recorder.feeds
