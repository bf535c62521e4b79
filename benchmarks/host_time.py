"""Measure the host time of a decoding step: everything outside the backend. Run it with `make host-time`."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speech_runtime import GenerationConfig
from speech_runtime.backends.base import Prepared
from speech_runtime.bundle.graph_io import TOP_IDS, TOP_LOGPROBS
from speech_runtime.bundle.model_facts import DecoderFacts
from speech_runtime.generation.call import generate
from speech_runtime.generation.call_options import CallOptions
from speech_runtime.generation.decoding.decoder import CachedDecoder
from speech_runtime.generation.prompts import Prompt

LAYERS, TOP_K, STEPS, REPETITIONS = 12, 64, 60, 30
FACTS = DecoderFacts(LAYERS, 16, 64, vocab_size=250_054, max_positions=None, max_tokens=None, top_k=TOP_K)
LIMITS = {1: 0.15, 16: 0.5}
"""Largest milliseconds of a step, by the number of utterances at 5 beams."""


class StubBackend:
    """A backend that returns at once: candidates are drawn before the clock starts, and caches are empty."""

    def __init__(self, batch: int, beams: int) -> None:
        random = np.random.default_rng(0)
        logprobs = -np.sort(random.exponential(3.0, (STEPS, batch, beams, 1, TOP_K)).astype(np.float32), axis=-1)
        ids = random.integers(3, FACTS.vocab_size, logprobs.shape)
        self._answers = list(zip(logprobs, ids, strict=True))
        self._step = 0

    @property
    def on_host(self) -> bool:
        """See `Backend.on_host`."""
        return True

    @property
    def recordings(self) -> int:
        """See `Backend.recordings`."""
        return 0

    @property
    def recording_memory(self) -> int | None:
        """See `Backend.recording_memory`."""
        return None

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """See `Backend.allocate`."""
        return np.zeros(shape, dtype=dtype)

    def write(self, value: NDArray[Any], array: NDArray[Any]) -> None:
        """See `Backend.write`."""
        value[...] = array

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Backend.upload`."""
        return array

    def download(self, value: NDArray[Any]) -> NDArray[Any]:
        """See `Backend.download`."""
        return value

    def synchronize(self) -> None:
        """See `Backend.synchronize`."""

    def dtype(self, graph: str, name: str) -> np.dtype[Any]:  # noqa: ARG002
        """See `Backend.dtype`."""
        return np.dtype(np.float32)

    def share(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Backend.share`."""
        return array

    def prepare(
        self,
        graph: str,  # noqa: ARG002
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        into: Mapping[str, Any],
    ) -> Prepared:
        """See `Backend.prepare`."""
        results: dict[str, Any] = dict.fromkeys(outputs)
        beams = inputs["input_ids"].shape[1]

        def run() -> dict[str, Any]:
            for name, answer in zip((TOP_LOGPROBS, TOP_IDS), self._answers[self._step], strict=True):
                into[name][:] = answer[:, :beams]
            self._step += 1
            return results

        return run

    def run(self, graph: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """See `Backend.run`."""
        return dict.fromkeys(outputs)


def milliseconds_per_step(batch: int, beams: int) -> float:
    """Median over repetitions of a search that never ends by itself."""
    config = GenerationConfig(decoder_start_token_id=0, eos_token_id=2, pad_token_id=1, num_beams=beams)
    prompts, options = [Prompt(np.arange(batch), np.zeros((batch, 1), dtype=np.int64))], CallOptions()
    config = config.updated({"max_new_tokens": STEPS, "suppress_tokens": [2]})
    times = []
    for _ in range(REPETITIONS):
        decoder = CachedDecoder(StubBackend(batch, beams), FACTS, batch, None, None)
        begin = time.perf_counter()
        found = generate(lambda *_, own=decoder: own, FACTS, None, config, prompts, options)
        times.append((time.perf_counter() - begin) / found.steps)
    return float(np.median(times)) * 1000


def main() -> None:
    """Print a table."""
    print("| utterances | beams | host ms a step | at most |\n|---|---|---|---|")  # noqa: T201
    for batch, limit in LIMITS.items():
        print(f"| {batch} | 5 | {milliseconds_per_step(batch, 5):.3f} | {limit} |")  # noqa: T201


if __name__ == "__main__":
    main()
