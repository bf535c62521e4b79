"""Test recorded steps on a session that records and replays blindly, as ONNX Runtime does with CUDA graphs."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from composites import composite
from conftest import ONE_THREAD, ExportOnce
from handmade_bundle import DECODER, make_bundle
from speech_export.precision.options import PrecisionOptions
from speech_runtime import CudaOptions, EngineError, OnnxSpeechSeq2Seq, SessionOptions
from speech_runtime.backends.cuda.graphs import CudaGraphs, frame_bucket
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.backends.onnxruntime.graph_providers import graph_providers
from speech_runtime.backends.onnxruntime.sessions import run_options
from speech_runtime.backends.options import CUDA
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, GRAPHS
from speech_runtime.bundle.loading import Bundle
from speech_runtime.generation.decoding.caches.buffer_pool import StepBufferPool
from speech_runtime.generation.decoding.decoder import CachedDecoder

NOT_RECORDED = "-1"


class RecordingSession:
    """A session that replays the first run recorded under a number, whatever inputs come with that number later."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.recorded: dict[str, Any] = {}
        self.numbers: list[str] = []
        self.running = threading.Lock()

    def io_binding(self) -> Any:
        return self.session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        assert self.running.acquire(blocking=False), "two runs at a time"
        try:
            self._run(binding, options)
        finally:
            self.running.release()

    def _run(self, binding: Any, options: Any) -> None:
        number = options.get_run_config_entry("gpu_graph_id")
        assert number != "0", "0 is ONNX Runtime's own"
        self.numbers.append(number)
        if number == NOT_RECORDED:
            self.session.run_with_iobinding(binding)
            return
        if number not in self.recorded:  # the first run is not recorded: it allocates memory
            self.recorded[number] = binding
            self.session.run_with_iobinding(binding)
        self.session.run_with_iobinding(self.recorded[number])


class OnDevice(OnnxRuntimeBackend):
    """ONNX Runtime on the CPU that claims to be on a GPU with CUDA graphs; new memory is not zeroed."""

    on_host = False
    recordings = 2

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, ONE_THREAD)
        self.session = RecordingSession(self._sessions[DECODER_WITH_PAST])
        self._cuda_graphs = CudaGraphs(self.session, partial(run_options, onnxruntime, ONE_THREAD))
        self._turn = threading.RLock()

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return self.upload(np.full(shape, np.nan if dtype.kind == "f" else -1, dtype=dtype))

    def download(self, value: Any) -> NDArray[Any]:
        return super().download(value).copy()  # a copy, as from a GPU, since the tensor is overwritten


@pytest.fixture(scope="module")
def static(export_once: ExportOnce) -> Callable[[str], Bundle]:
    def make(family: str) -> Bundle:
        settings: dict[str, Any] = {"precision": PrecisionOptions(target="cuda"), "static_cache": 40}
        return Bundle.open(export_once(f"{family}-static", composite(family), **settings))

    return make


@pytest.fixture
def models(static: Callable[[str], Bundle]) -> tuple[OnnxSpeechSeq2Seq, OnnxSpeechSeq2Seq, RecordingSession]:
    """Load a model with recorded steps, and one without."""
    bundle = static("bert")
    plain = OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=ONE_THREAD)
    backend = OnDevice(bundle)
    parts = (plain.manifest, plain.generation_config, plain.feature_extractor, plain.tokenizer)
    return OnnxSpeechSeq2Seq(backend, *parts), plain, backend.session


def clips(batch: int, samples: int = 500, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((batch, samples)).astype(np.float32)


Models = tuple[OnnxSpeechSeq2Seq, OnnxSpeechSeq2Seq, RecordingSession]


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 1},
        {"num_beams": 4, "num_return_sequences": 2},
        {"num_beams": 3, "repetition_penalty": 1.3},
        {"num_beams": 2, "decoder_input_ids": [[5, 6, 7], [8, 9, 10]]},
    ],
    ids=["greedy", "beams", "whole vocabulary", "prompt"],
)
def test_replayed_searches_find_the_same(models: Models, settings: dict[str, Any]) -> None:
    recorded, plain, session = models
    for seed in range(3):
        inputs = clips(2, seed=seed)
        found, expected = (
            model.generate(inputs, max_new_tokens=24, return_dict_in_generate=True, **settings)
            for model in (recorded, plain)
        )
        np.testing.assert_array_equal(found.sequences, expected.sequences)
        np.testing.assert_allclose(found.sequences_scores, expected.sequences_scores, atol=1e-5)
    assert NOT_RECORDED not in session.numbers


def test_later_utterances_record_nothing_new(models: Models) -> None:
    recorded, _, session = models
    for seed in range(3):
        recorded.generate(clips(1, seed=seed), num_beams=4, min_new_tokens=12, max_new_tokens=12)
    first, *others = np.array_split(session.numbers, 3)
    assert [list(each) for each in others] == [list(first)] * 2
    # Recordings: the first token with one beam, the next with its four beams, then two caches in turn.
    assert [int(number) for number in first] == [1, 2, *[3, 4] * 5]


def test_sizes_beyond_those_that_were_asked_for_are_not_recorded(models: Models) -> None:
    recorded, plain, session = models
    for batch in (1, 2):
        recorded.generate(clips(batch), num_beams=2, max_new_tokens=6)
    before = len(session.recorded)
    session.numbers.clear()
    found = recorded.generate(clips(3), num_beams=2, max_new_tokens=6)
    assert set(session.numbers) == {NOT_RECORDED}
    assert len(session.recorded) == before
    np.testing.assert_array_equal(found, plain.generate(clips(3), num_beams=2, max_new_tokens=6))


def test_clips_of_about_the_same_length_share_what_was_recorded(models: Models) -> None:
    recorded, plain, session = models
    stride = recorded.manifest.encoder.frame_stride
    assert stride is not None
    for frames in (35, 37, 39):
        inputs = clips(1, frames * stride)
        settings = {"num_beams": 3, "min_new_tokens": 9, "max_new_tokens": 9}
        np.testing.assert_array_equal(recorded.generate(inputs, **settings), plain.generate(inputs, **settings))
        assert len(session.recorded) == 4


@pytest.mark.parametrize(("masks_audio", "frames"), [(True, 20), (False, 17)])
def test_a_decoder_that_heeds_no_mask_is_given_no_more_frames(
    masks_audio: bool, frames: int, static: Callable[[str], Bundle]
) -> None:
    backend, facts = OnDevice(static("bert")), replace(static("bert").manifest.decoder, masks_audio=masks_audio)
    states, mask = np.ones((1, 17, 24), dtype=np.float32), np.ones((1, 17), dtype=np.int64)
    lent = StepBufferPool(backend, facts).lend(backend, backend.upload(states), backend.upload(mask))
    assert lent is not None
    assert lent.fixed["cross.0.key"].shape()[2] == frames
    assert backend.download(lent.fixed["encoder_attention_mask"]).sum() == 17


def test_two_searches_at_a_time_have_memory_of_their_own(static: Callable[[str], Bundle]) -> None:
    bundle = static("bert")
    backend, facts = OnDevice(bundle), bundle.manifest.decoder
    memories = StepBufferPool(backend, facts)
    mask = np.ones((1, 20), dtype=np.int64)

    def search(seed: int) -> CachedDecoder:
        states = np.random.default_rng(seed).standard_normal((1, 20, 24)).astype(np.float32)
        return CachedDecoder(backend, facts, 1, backend.upload(states), backend.upload(mask), memories)

    def step(decoder: CachedDecoder, tokens: Sequence[int]) -> NDArray[np.float32]:
        return np.stack([decoder.step([[token]], [[0]], full_vocab=True).scores for token in tokens])

    alone = [step(search(seed), (1, 5, 9)) for seed in range(3)]
    decoders = [search(seed) for seed in range(3)]  # memory is reserved for two
    together = [[step(decoder, [token]) for decoder in decoders] for token in (1, 5, 9)]
    for seed in range(3):
        np.testing.assert_allclose(np.concatenate([found[seed] for found in together]), alone[seed], atol=1e-6)
    assert NOT_RECORDED in backend.session.numbers


def test_threads_find_what_they_find_alone(models: Models) -> None:
    recorded, plain, _ = models
    settings = {"num_beams": 3, "max_new_tokens": 16}
    expected = [plain.generate(clips(1, seed=seed), **settings) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda seed: recorded.generate(clips(1, seed=seed), **settings), range(4)))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Keeping(OnDevice):
    """Keeps the tensors that were uploaded, and those that were read last."""

    def __init__(self, bundle: Bundle) -> None:
        self.uploaded: list[Any] = []
        self.read: list[Any] = []
        super().__init__(bundle)

    def upload(self, array: NDArray[Any]) -> Any:
        self.uploaded.append(super().upload(array))
        return self.uploaded[-1]

    def download(self, value: Any) -> NDArray[Any]:
        self.read.append(value)
        return super().download(value)


def test_nothing_is_left_where_a_recording_may_have_intermediate_results(static: Callable[[str], Bundle]) -> None:
    backend = Keeping(static("bert"))
    states, mask = np.ones((1, 20, 24), dtype=np.float32), np.ones((1, 20), dtype=np.int64)
    facts = static("bert").manifest.decoder
    decoder = CachedDecoder(backend, facts, 1, backend.upload(states), backend.upload(mask))  # nothing is lent to it
    decoder.step([[1]], [[0]], full_vocab=False)
    assert backend.session.numbers == [NOT_RECORDED]
    for value in backend.read[-2:]:  # log-probabilities and ids, in the order of the search
        assert any(value is each for each in backend.uploaded)


def test_sequences_of_hypotheses_are_decoded_beside_a_recorded_search(models: Models) -> None:
    recorded, plain, _ = models
    tokens = np.random.default_rng(0).integers(4, 90, (1, 9))
    found, expected = (model.forward(clips(1), decoder_input_ids=tokens).logits for model in (recorded, plain))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_frames_are_filled_up_by_a_quarter_at_most() -> None:
    held = [frame_bucket(frames) for frames in range(1, 2000)]
    assert all(frames <= size for frames, size in enumerate(held, start=1))
    assert all(size <= max(16, 1.25 * frames) for frames, size in enumerate(held, start=1))
    assert sorted(set(held))[:10] == [16, 20, 24, 28, 32, 40, 48, 56, 64, 80]


def settings(options: SessionOptions, bundle: Bundle, graph: str) -> dict[str, str]:
    return dict(graph_providers(options, bundle, graph, 32, "1.32"))[CUDA]


def test_the_step_alone_is_recorded(static: Callable[[str], Bundle]) -> None:
    options = SessionOptions(device="cuda", cuda=CudaOptions(cuda_graphs=4))
    found = {graph: settings(options, static("bert"), graph).get("enable_cuda_graph") for graph in GRAPHS}
    assert found == {"encoder": None, "decoder_init": None, DECODER_WITH_PAST: "1"}
    off = settings(SessionOptions(device="cuda"), static("bert"), DECODER_WITH_PAST)
    assert "enable_cuda_graph" not in off


def test_steps_whose_shapes_change_cannot_be_recorded(tmp_path: Path) -> None:
    growing = Bundle.open(make_bundle(tmp_path / "bundle", target="cuda", decoder=DECODER))
    options = SessionOptions(device="cuda", cuda=CudaOptions(cuda_graphs=4))
    with pytest.raises(EngineError, match="cuda_graphs is 4, and the cache of .* grows .* with --static-cache TOKENS"):
        graph_providers(options, growing, DECODER_WITH_PAST, 32, "1.32")


@pytest.mark.parametrize("number", [-1, True, None, 2.5])
def test_what_is_no_number_of_sizes_is_refused(number: Any) -> None:
    with pytest.raises(EngineError, match=r"cuda_graphs is .*; give a number of sizes, or 0 for no CUDA graphs"):
        CudaOptions(cuda_graphs=number)


def test_only_cuda_records() -> None:
    with pytest.raises(
        EngineError, match="cuda_graphs is 2, and device 'tensorrt' records no CUDA graphs; set device='cuda'"
    ):
        SessionOptions(device="tensorrt", cuda=CudaOptions(cuda_graphs=2))
