"""Records the inputs of each graph while a bundle transcribes given audio."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speech_runtime import GenerationConfig, SessionOptions
from speech_runtime.backends.base import Backend, Prepared, Value
from speech_runtime.backends.forwarding import ForwardingBackend
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.loading import Bundle
from speech_runtime.bundle.manifest import GENERATION_CONFIG
from speech_runtime.generation.generator import SpeechGenerator

_NEW_TOKENS = 64

ModelInput = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Padded batch, float32 [batch, samples] or [batch, time, features], and its mask int64 [batch, samples or time]."""
Feed = dict[str, NDArray[Any]]


class _Recorder(ForwardingBackend):
    """A backend that keeps a copy of the inputs of every run."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.feeds: dict[str, list[Feed]] = {graph: [] for graph in GRAPHS}

    def prepare(
        self, graph: str, inputs: Mapping[str, Value], outputs: Sequence[str], into: Mapping[str, Value]
    ) -> Prepared:
        prepared = super().prepare(graph, inputs, outputs, into)

        def run() -> dict[str, Value]:
            # Copied, because a download from the CPU shares the memory of the tensor, which does not outlive the step.
            self.feeds[graph].append({name: self.download(value).copy() for name, value in inputs.items()})
            return prepared()

        return run


def record(bundle: Bundle, calibration: Iterable[ModelInput]) -> Iterator[dict[str, list[Feed]]]:
    """Let `bundle` transcribe `calibration`, and yield the inputs of each graph for each batch, one entry for each run.

    The decoder takes all tokens of the result at once, with the start token, after an empty past. So one run computes
    all numbers that it would compute token by token.
    """
    manifest = bundle.manifest
    backend = OnnxRuntimeBackend(bundle, SessionOptions())
    config = GenerationConfig.from_file(bundle.path(GENERATION_CONFIG))
    plain = SpeechGenerator(backend, manifest, config, None)
    language = manifest.example_language
    new_tokens = min(_NEW_TOKENS, (manifest.decoder.longest or sys.maxsize) - manifest.prompt_length)
    for inputs, mask in calibration:
        tokens = plain.generate(inputs, mask, language=language, num_return_sequences=1, max_new_tokens=new_tokens)
        recorder = _Recorder(backend)
        recorded = SpeechGenerator(recorder, manifest, config, None)
        recorded.forward(inputs, mask, decoder_input_ids=tokens)
        yield recorder.feeds
