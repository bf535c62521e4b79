"""Test that recorded steps of changing sizes stay within their bounds. The GPU only counts what it allocates."""

import gc
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from speech_runtime import GenerationConfig
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, LOGITS, TOP_IDS, TOP_LOGPROBS
from speech_runtime.bundle.model_facts import DecoderFacts
from speech_runtime.generation.call import generate
from speech_runtime.generation.call_options import CallOptions
from speech_runtime.generation.decoding.caches.buffer_pool import StepBufferPool
from speech_runtime.generation.decoding.decoder import CachedDecoder
from speech_runtime.generation.prompts import Prompt

MIB = 2**20
TOP_K, VOCABULARY = 16, 1000
FACTS = DecoderFacts(12, 16, 64, VOCABULARY, None, max_tokens=1, top_k=TOP_K, cache="static", cache_length=64)
UTTERANCES = 1000
SIZES, MEMORY = 24, 2048 * MIB


@dataclass(eq=False)
class Tensor:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    array: NDArray[Any] | None = None


class CountingGpu:
    """A GPU whose tensors have sizes but no contents, apart from those that the host reads.

    Attributes:
        live: Bytes of all tensors that something refers to.
        recorded: Tensors of each recording; a recording is never freed.
        unrecorded: Number of steps that were not recorded.
    """

    on_host = False

    def __init__(self, recordings: int, recording_memory: int | None) -> None:
        self.recordings, self.recording_memory = recordings, recording_memory
        self.live = self.unrecorded = 0
        self.recorded: dict[tuple[int, ...], list[Tensor]] = {}
        self._random = np.random.default_rng(0)

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        tensor, size = Tensor(shape, dtype), prod(shape) * dtype.itemsize
        self._count(size)
        weakref.finalize(tensor, self._count, -size)
        return tensor

    def _count(self, size: int) -> None:
        self.live += size

    def write(self, value: Tensor, array: NDArray[Any]) -> None:
        assert (value.shape, value.dtype) == (array.shape, array.dtype)
        value.array = array

    def upload(self, array: NDArray[Any]) -> Tensor:
        tensor = self.allocate(array.shape, array.dtype)
        tensor.array = array
        return tensor

    def download(self, value: Tensor) -> NDArray[Any]:
        assert value.array is not None
        return value.array

    def share(self, array: NDArray[Any]) -> Tensor:
        raise NotImplementedError

    def synchronize(self) -> None:
        pass

    def dtype(self, graph: str, name: str) -> np.dtype[Any]:
        return np.dtype(np.float16)

    def prepare(
        self, graph: str, inputs: Mapping[str, Tensor], outputs: Sequence[str], into: Mapping[str, Tensor]
    ) -> Any:
        return partial(self._run, graph, inputs, outputs, into)

    def run(self, graph: str, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> dict[str, Tensor]:
        return self._run(graph, inputs, outputs, {})

    def _run(
        self, graph: str, inputs: Mapping[str, Tensor], outputs: Sequence[str], into: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        if graph != DECODER_WITH_PAST:
            batch, frames, _ = inputs["encoder_hidden_states"].shape
            shape = (batch, FACTS.heads, frames, FACTS.head_dim)
            return {name: self.allocate(shape, self.dtype(graph, name)) for name in outputs}
        if into and not outputs:
            tensors = [*inputs.values(), *into.values()]
            self.recorded.setdefault(tuple(map(id, tensors)), tensors)
        else:
            self.unrecorded += 1
        rows = inputs["input_ids"].shape
        widths = {LOGITS: VOCABULARY, TOP_LOGPROBS: TOP_K, TOP_IDS: TOP_K}
        found = {name: into.get(name) or self._output((*rows, widths[name]), name) for name in outputs}
        for name, tensor in {**found, **into}.items():
            if name in widths:
                tensor.array = self._values(tensor.shape, name)
        return found

    def _output(self, shape: tuple[int, ...], name: str) -> Tensor:
        return self.allocate(shape, np.dtype(np.int64 if name == TOP_IDS else np.float32))

    def _values(self, shape: tuple[int, ...], name: str) -> NDArray[Any]:
        if name == TOP_IDS:
            return self._random.integers(3, VOCABULARY, shape)
        return -np.sort(self._random.exponential(3.0, shape).astype(np.float32), axis=-1)


def transcribe(gpu: CountingGpu, pool: StepBufferPool, utterances: int) -> int:
    """Search for so many utterances; batches, beams, lengths and settings change. Return the most bytes at a time."""
    random, done, most = np.random.default_rng(1), 0, 0
    while done < utterances:
        batch, beams = int(random.integers(1, 9)), int(random.choice([1, 2, 5]))
        frames, tokens = int(random.integers(5, 1500)), int(random.integers(1, 6))
        settings: dict[str, Any] = {"num_beams": beams, "max_new_tokens": tokens, "suppress_tokens": [2]}
        if random.random() < 0.2:
            settings["repetition_penalty"] = 1.2  # needs all logits
        config = GenerationConfig(decoder_start_token_id=0, eos_token_id=2, pad_token_id=1).updated(settings)
        prompts = [Prompt(np.arange(batch), np.zeros((batch, 1), dtype=np.int64))]
        states, mask = np.zeros((batch, frames, 8), np.float16), np.ones((batch, frames), np.int64)

        def decoder(
            _: NDArray[np.int64], longest: int, *, audio: Any = (states, mask), rows: int = beams
        ) -> CachedDecoder:
            uploaded = [gpu.upload(array) for array in audio]
            return CachedDecoder(gpu, FACTS, len(audio[0]), uploaded[0], uploaded[1], pool, longest, rows)

        found = generate(decoder, FACTS, None, config, prompts, CallOptions())
        assert len(found.sequences) == batch
        done, most = done + batch, max(most, gpu.live)
    gc.collect()
    return most


def test_a_thousand_utterances_of_changing_sizes_stay_within_the_bounds() -> None:
    gpu = CountingGpu(SIZES, MEMORY)
    pool = StepBufferPool(gpu, FACTS)
    transcribe(gpu, pool, UTTERANCES)
    kept, recorded = gpu.live, len(gpu.recorded)
    assert 0.5 * MEMORY < kept <= MEMORY + MIB  # the tokens of a step are not counted
    # First token and further ones, two caches in turn, candidates or logits.
    assert SIZES < recorded <= 8 * SIZES
    assert gpu.unrecorded
    transcribe(gpu, pool, UTTERANCES)  # the same once more
    assert (gpu.live, len(gpu.recorded)) == (kept, recorded)


@pytest.mark.parametrize("bounds", [(0, None), (SIZES, 0)], ids=["no sizes", "no memory"])
def test_without_sizes_or_memory_nothing_is_kept(bounds: tuple[int, int | None]) -> None:
    gpu = CountingGpu(*bounds)
    transcribe(gpu, StepBufferPool(gpu, FACTS), 50)
    assert (gpu.live, gpu.recorded) == (0, {})


def test_the_number_of_sizes_alone_bounds_what_is_recorded() -> None:
    gpu = CountingGpu(3, None)
    pool = StepBufferPool(gpu, FACTS)
    transcribe(gpu, pool, 100)
    kept = gpu.live
    assert 3 <= len(gpu.recorded) <= 3 * 8
    transcribe(gpu, pool, 100)
    assert gpu.live == kept
