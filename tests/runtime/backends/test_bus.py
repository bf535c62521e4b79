"""Test that only tokens and candidates are copied to and from a device. The device is the CPU and counts copies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import ONE_THREAD, Pair
from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.backends.base import Backend, Prepared
from speech_runtime.backends.forwarding import ForwardingBackend
from speech_runtime.bundle.graph_io import BEAM_IDX, DECODER_WITH_PAST, INPUT_IDS, LOGITS, TOP_IDS, TOP_LOGPROBS

CLIPS = [np.random.default_rng(seed).standard_normal(9000 + seed).astype(np.float32) for seed in range(2)]


class CountingBackend(ForwardingBackend):
    """ONNX Runtime that claims to run on a device, and counts what is copied and which outputs are requested."""

    on_host = False

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.up: list[tuple[int, ...]] = []
        self.down: list[tuple[int, ...]] = []
        self.asked: list[set[str]] = []
        self.bound: list[Mapping[str, Any]] = []

    def upload(self, array: NDArray[Any]) -> Any:
        self.up.append(array.shape)
        return self.backend.upload(array)

    def download(self, value: Any) -> NDArray[Any]:
        array = self.backend.download(value)
        self.down.append(array.shape)
        return array

    def prepare(
        self, graph: str, inputs: Mapping[str, Any], outputs: Sequence[str], into: Mapping[str, Any]
    ) -> Prepared:
        assert self.on_host or not into, "something is written into the host's memory"
        prepared = self.backend.prepare(graph, inputs, outputs, into)

        def run() -> dict[str, Any]:
            found = prepared()
            if graph == DECODER_WITH_PAST:
                self.asked.append({*outputs, *into})
                self.bound.append({**inputs, **found})
            return found

        return run


@pytest.fixture
def counting(digits_for_tensorrt: Path) -> tuple[OnnxSpeechSeq2Seq, CountingBackend]:
    model = OnnxSpeechSeq2Seq.from_pretrained(digits_for_tensorrt, options=ONE_THREAD)
    backend = CountingBackend(model._backend)
    parts = (model.manifest, model.generation_config, model.feature_extractor, model.tokenizer)
    return OnnxSpeechSeq2Seq(backend, *parts), backend


def test_only_tokens_beams_and_candidates_cross_the_bus(counting: tuple[OnnxSpeechSeq2Seq, CountingBackend]) -> None:
    model, backend = counting
    inputs, mask = model.feature_extractor(CLIPS)
    encoded = model.encode(inputs, mask)
    backend.up.clear()
    model.generate(encoder_outputs=encoded, num_beams=3, max_new_tokens=8)
    facts = model.manifest.decoder
    steps = len(backend.asked)
    first = [(2, 1, facts.heads, 0, facts.head_dim), (2, 1, 1), (2, 1)]
    assert backend.up == [*first, *([(2, 3, 1), (2, 3)] * (steps - 1))]
    assert backend.down == [(2, 1, 1, facts.top_k)] * 2 + [(2, 3, 1, facts.top_k)] * (2 * (steps - 1))


def test_what_a_step_leaves_is_what_the_next_one_reads(counting: tuple[OnnxSpeechSeq2Seq, CountingBackend]) -> None:
    model, backend = counting
    model.generate(CLIPS[0][None], num_beams=3, max_new_tokens=6)
    for before, after in zip(backend.bound, backend.bound[1:], strict=False):
        for name, value in after.items():
            if name.startswith("past."):
                assert value is before[name.replace("past", "present")]
            elif name.startswith("cross.") or name == "encoder_attention_mask":
                assert value is before[name]


def test_nobody_asks_for_logits_that_nobody_reads(counting: tuple[OnnxSpeechSeq2Seq, CountingBackend]) -> None:
    model, backend = counting
    model.generate(CLIPS[0][None], num_beams=3, max_new_tokens=4)
    assert all(LOGITS not in asked and {TOP_LOGPROBS, TOP_IDS} <= asked for asked in backend.asked)
    backend.asked.clear()
    model.generate(CLIPS[0][None], repetition_penalty=1.5, max_new_tokens=4)
    assert all(LOGITS in asked and not {TOP_LOGPROBS, TOP_IDS} & asked for asked in backend.asked)


def test_utterances_that_are_done_do_not_bring_the_caches_to_the_host(
    digits: Pair, counting: tuple[OnnxSpeechSeq2Seq, CountingBackend], references: dict[Any, str]
) -> None:
    model, backend = counting
    clips = [model.load(path) for path in sorted(references, key=lambda path: len(references[path]))]
    chosen = [*clips[:6], clips[-1]]  # the short clips end long before the long one
    found = list(model.transcribe_iter(chosen, batch_size=len(chosen), num_beams=3))
    expected = list(digits.exported.transcribe_iter(chosen, batch_size=len(chosen), num_beams=3))
    assert [heard.text for heard in found] == [heard.text for heard in expected]
    assert {inputs[INPUT_IDS].shape()[0] for inputs in backend.bound} == {len(chosen)}
    assert max(map(len, backend.up)) == 5  # the empty past
    assert {shape[0] for shape in backend.up if len(shape) == 5} == {len(chosen)}
    assert all(shape[-1] == model.manifest.decoder.top_k for shape in backend.down if len(shape) == 4)
    assert backend.bound[-1][BEAM_IDX].shape() == [len(chosen), 3]
    backend.on_host = True
    backend.bound.clear()
    model.transcribe(chosen, batch_size=len(chosen), num_beams=3)
    assert backend.bound[-1][BEAM_IDX].shape()[0] < len(chosen)  # on the host, finished rows are dropped
